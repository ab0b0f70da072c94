// SPDX-License-Identifier: Apache-2.0
// Both 16-bit formats over all their 65536 numbers, against arithmetic in double.
#include <bit>
#include <cmath>
#include <limits>

#include "check.h"
#include "wire/half.h"

namespace {

using namespace dgs::wire;

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }

double half_by_definition(unsigned half) {
  const int exponent = static_cast<int>(half >> 10 & 31), mantissa = static_cast<int>(half & 1023);
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (half & 0x8000u) != 0 ? -magnitude : magnitude;
}

TEST(half_to_float_by_definition) {
  for (unsigned half = 0; half < 65536; ++half) {
    const std::uint32_t bits = half_to_float(static_cast<std::uint16_t>(half));
    if ((half >> 10 & 31) == 31) {
      CHECK(!is_finite(bits));
      CHECK_EQ(std::isnan(float_of(bits)), (half & 1023) != 0);
    } else {
      CHECK_EQ(static_cast<double>(float_of(bits)), half_by_definition(half));
      CHECK_EQ(bits >> 31, half >> 15);
    }
  }
}

TEST(float_to_half_inverts) {
  for (unsigned half = 0; half < 65536; ++half) {
    if ((half >> 10 & 31) == 31) continue;
    std::uint16_t back = 0;
    CHECK(float_to_half(half_to_float(static_cast<std::uint16_t>(half)), &back));
    CHECK_EQ(back, half);
  }
}

// The float32 neighbours of a float16 number, and everything between two float16 numbers, are not float16.
TEST(what_is_between_is_refused) {
  std::uint16_t ignored = 0;
  for (unsigned half = 0; half < 0x7c00; ++half) {
    const std::uint32_t bits = half_to_float(static_cast<std::uint16_t>(half));
    CHECK(!float_to_half(bits + 1, &ignored));
    if (half > 0) CHECK(!float_to_half(bits - 1, &ignored));
    const std::uint32_t next =
        half < 0x7bff ? half_to_float(static_cast<std::uint16_t>(half + 1)) : bits_of(65536);
    CHECK(!float_to_half(bits_of((float_of(bits) + float_of(next)) / 2), &ignored));
  }
  for (const float large : {65536.0f, 1e5f, std::numeric_limits<float>::max()}) {
    CHECK(!float_to_half(bits_of(large), &ignored));
    CHECK(!float_to_half(bits_of(-large), &ignored));
  }
  CHECK(!float_to_half(1, &ignored));           // the smallest float32
  CHECK(!float_to_half(0x007fffff, &ignored));  // the largest subnormal
}

TEST(bfloat_both_ways) {
  for (unsigned bfloat = 0; bfloat < 65536; ++bfloat) {
    const std::uint32_t bits = bfloat_to_float(static_cast<std::uint16_t>(bfloat));
    CHECK_EQ(bits, bfloat << 16);
    std::uint16_t back = 0;
    CHECK(float_to_bfloat(bits, &back));
    CHECK_EQ(back, bfloat);
    for (unsigned bit = 0; bit < 16; ++bit) CHECK(!float_to_bfloat(bits | 1u << bit, &back));
  }
}

}  // namespace
