// SPDX-License-Identifier: Apache-2.0
// Exact conversions between float32 bits and the 16-bit formats. Nothing is rounded here: a value that the
// format does not hold is refused. No branches, so that loops over them become vectors; and floats only where
// every result is exact and normal, so that a thread that flushes denormals gets the same answer.
#pragma once

#include <bit>
#include <cstdint>

namespace dgs::wire {

inline constexpr std::uint32_t kFloatSign = 0x80000000u;
inline constexpr std::uint32_t kFloatExponent = 0x7f800000u;

inline bool is_finite(std::uint32_t bits) { return (bits & kFloatExponent) != kFloatExponent; }
inline bool is_zero(std::uint32_t bits) { return (bits & ~kFloatSign) == 0; }

inline constexpr std::uint32_t kSmallestHalf = 0x38800000u;  // of the normal ones, 2^-14; below are n·2^-24
inline constexpr std::uint32_t kLargestHalf = 0x477fe000u;   // 65504
inline constexpr std::uint32_t kHalfBias = 0x38000000u;      // between the two exponents, 112

inline std::uint32_t subnormal_half(std::int32_t n) {
  return std::bit_cast<std::uint32_t>(static_cast<float>(n) * 0x1p-24f);
}

// All ones or none.
inline std::uint32_t mask_if(bool condition) { return condition ? ~0u : 0u; }

// False if `bits`, a finite float32, is not a float16.
inline bool float_to_half(std::uint32_t bits, std::uint16_t* half) {
  const std::uint32_t sign = (bits & kFloatSign) >> 16, magnitude = bits & ~kFloatSign;
  const std::uint32_t small = mask_if(magnitude < kSmallestHalf), below = magnitude & small;
  const auto n = static_cast<std::int32_t>(std::bit_cast<float>(below) * 0x1p24f);  // less than 2^10
  const std::uint32_t wrong_small = subnormal_half(n) ^ below;
  const std::uint32_t wrong = (magnitude & 0x1fffu) | mask_if(magnitude > kLargestHalf);
  const std::uint32_t normal = (magnitude - kHalfBias) >> 13;
  *half = static_cast<std::uint16_t>(sign | (static_cast<std::uint32_t>(n) & small) | (normal & ~small));
  return ((wrong_small & small) | (wrong & ~small)) == 0;
}

inline std::uint32_t half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  const std::uint32_t small = mask_if(magnitude < 0x400u);
  const std::uint32_t special = mask_if(magnitude >= 0x7c00u) & kFloatExponent;  // an infinity or a NaN
  const std::uint32_t normal = ((magnitude << 13) + kHalfBias) | special;
  return sign | (subnormal_half(static_cast<std::int32_t>(magnitude)) & small) | (normal & ~small);
}

// False if `bits` is not a bfloat16.
inline bool float_to_bfloat(std::uint32_t bits, std::uint16_t* bfloat) {
  *bfloat = static_cast<std::uint16_t>(bits >> 16);
  return (bits & 0xffffu) == 0;
}

inline std::uint32_t bfloat_to_float(std::uint16_t bfloat) {
  return static_cast<std::uint32_t>(bfloat) << 16;
}

}  // namespace dgs::wire
