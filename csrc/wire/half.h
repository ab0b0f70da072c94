// SPDX-License-Identifier: Apache-2.0
// Exact conversions between float32 bits and the 16-bit formats. Nothing is rounded here: a value that the
// format does not hold is refused. All on integers, so that a thread that flushes denormals gets the same
// answer.
#pragma once

#include <bit>
#include <cstdint>

namespace dgs::wire {

inline constexpr std::uint32_t kFloatSign = 0x80000000u;
inline constexpr std::uint32_t kFloatExponent = 0x7f800000u;

inline bool is_finite(std::uint32_t bits) { return (bits & kFloatExponent) != kFloatExponent; }
inline bool is_zero(std::uint32_t bits) { return (bits & ~kFloatSign) == 0; }

// False if `bits`, a finite float32, is not a float16.
inline bool float_to_half(std::uint32_t bits, std::uint16_t* half) {
  const auto sign = static_cast<std::uint16_t>((bits & kFloatSign) >> 16);
  const std::uint32_t mantissa = bits & 0x007fffffu;
  const int exponent = static_cast<int>((bits & kFloatExponent) >> 23) - 127;
  *half = sign;
  if (is_zero(bits)) return true;
  if (exponent > 15 || exponent < -24) return false;
  if (exponent >= -14) {
    const auto biased = static_cast<std::uint32_t>(exponent + 15);
    *half = static_cast<std::uint16_t>(sign | biased << 10 | mantissa >> 13);
    return (mantissa & 0x1fffu) == 0;
  }
  const std::uint32_t significand = mantissa | 0x00800000u;
  const int shift = -1 - exponent;  // 14 for the largest subnormals, 23 for the smallest
  *half = static_cast<std::uint16_t>(sign | significand >> shift);
  return (significand & ((1u << shift) - 1)) == 0;
}

inline std::uint32_t half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1f) return sign | kFloatExponent | mantissa << 13;
  if (exponent != 0) return sign | (exponent + 112) << 23 | mantissa << 13;
  if (mantissa == 0) return sign;
  const auto top = static_cast<unsigned>(std::bit_width(mantissa)) - 1;  // a subnormal is mantissa * 2^-24
  return sign | (top + 103) << 23 | (mantissa << (23 - top) & 0x007fffffu);
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
