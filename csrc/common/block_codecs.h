// SPDX-License-Identifier: Apache-2.0
// Codecs with a scale per block of kValueBlock entries of one segment: how values are rounded to them.
// Everything is integer arithmetic on the bits of float32, and needs of a block only a maximum and a sum of
// integers, so that no order of evaluation and no machine gives another result. For every value u and result
// q: 0 <= q/u <= 2, so that |u - (1-m) q| <= |u| for any momentum m in [0, 1), one by one and hence in norm.
// docs/wire_format.md has the numbers that a codec holds, wire/block_values.h packs them.
#pragma once

#include <cstdint>

#include "common/formulas.h"

namespace dgs {

constexpr int64_t kValueBlock = 128;
constexpr int64_t kFirstBlockCodec = 4, kLastBlockCodec = 8;

enum class BlockCodec : int64_t { kInt8 = 4, kLevel4 = 5, kLevel3 = 6, kLevel2 = 7, kSign = 8 };

// |x| as bits, saturated at the largest finite number; below 2^-126 it is 0, and a NaN counts as 0.
DGS_HD uint32_t codable(float x) {
  const uint32_t m = magnitude(x);
  return m < 0x00800000u || m > 0x7f800000u ? 0u : m < 0x7f800000u ? m : 0x7f7fffffu;
}

// What a block is to its values; add() all of them in any order, the largest first known.
struct BlockSums {
  uint32_t sum = 0;    // of significands, in units of the last bit of the largest
  uint32_t count = 0;  // of values that are not 0
};

DGS_HD uint32_t significand(uint32_t m) { return (m & 0x007fffffu) | 0x00800000u; }

// m in units of the last bit of `largest`, rounded down: at most 2^24 - 1, so that a block's sum is below
// 2^31.
DGS_HD uint32_t in_units_of(uint32_t largest, uint32_t m) {
  const uint32_t shift = (largest >> 23) - (m >> 23);
  const uint32_t units = significand(m) >> (shift < 24 ? shift : 24);
  return m == 0 ? 0u : units;
}

// sign: the mean magnitude of the values that are not 0, rounded down to 8 bits, at least 2^-126.
DGS_HD uint32_t sign_scale(uint32_t largest, BlockSums sums) {
  const uint32_t mean = sums.sum / sums.count;  // 2^16 or more: the largest alone adds 2^23
  uint32_t top = 16;
  while (mean >> (top + 1) != 0) ++top;
  const uint32_t exponent = (largest >> 23) + top;  // 23 too large
  return exponent < 24 ? 0x00800000u : (exponent - 23) << 23 | ((mean >> (top - 7)) & 0x7fu) << 16;
}
DGS_HD uint32_t sign_quantized(uint32_t m, uint32_t scale) { return m < scale - 0x00800000u ? 0u : scale; }

// int8: multiples of 2^(e - 6) up to 127 of them, 2^e <= largest < 2^(e+1), to nearest even, saturated.
// Rounded on the bits of m, and no branch: compilers make vectors of it.
DGS_HD uint32_t int8_scale(uint32_t largest) { return (largest >> 23) < 7 ? 1u : (largest >> 23) - 6; }
DGS_HD uint32_t int8_quantized(uint32_t m, uint32_t scale) {
  const uint32_t shift = 23 + scale - (m >> 23);  // 17 or more: bits of m below the last one that is kept
  const uint32_t cut = shift < 23 ? shift : 23, most = (scale + 6) << 23 | 0x007e0000u;  // 127 of them
  const uint32_t half_less = (1u << (cut - 1)) - 1, odd = (significand(m) >> cut) & 1u;
  const uint32_t rounded = (m + half_less + odd) & (~0u << cut);
  const uint32_t one =
      shift == 24 && (m & 0x007fffffu) != 0 ? scale << 23 : 0u;  // between a half and one of them
  return shift > 23 ? one : rounded < most ? rounded : most;
}

// Levels: half octaves t, standing for 2^(t/2 - 127) with the root of 2 rounded to float32; to nearest.
constexpr uint32_t kSqrt2 = 0x003504f3u;  // mantissa bits
DGS_HD uint32_t half_octave(uint32_t m) {
  const uint32_t f = m & 0x007fffffu;
  const uint32_t t = 2 * (m >> 23) + (f >= 0x001a827au ? 1 : 0) + (f >= 0x005a827au ? 1 : 0);
  return t < 509 ? t : 509;
}
DGS_HD uint32_t half_octave_bits(uint32_t t) { return (t >> 1) << 23 | ((t & 1u) != 0 ? kSqrt2 : 0u); }

// Down to `levels` - 1 half octaves below the block's largest; what is below half of the lowest level is 0.
DGS_HD uint32_t level_quantized(uint32_t m, uint32_t scale, uint32_t levels) {
  const uint32_t lowest = scale < levels + 1 ? 2 : scale - (levels - 1), t = half_octave(m);
  if (t >= lowest) return half_octave_bits(t);
  const uint32_t least = half_octave_bits(lowest);
  return m < least - 0x00800000u ? 0u : least;
}

DGS_HD uint32_t block_scale(BlockCodec codec, uint32_t largest, BlockSums sums) {
  return codec == BlockCodec::kSign   ? sign_scale(largest, sums)
         : codec == BlockCodec::kInt8 ? int8_scale(largest)
                                      : half_octave(largest);
}

// What x becomes in a block of that scale, which has a value that is not 0.
DGS_HD float quantized(float x, BlockCodec codec, uint32_t scale) {
  const uint32_t m = codable(x);
  if (m == 0) return magnitude(x) > 0x7f800000u ? x : 0.0f;  // NaN stays NaN
  const uint32_t q = codec == BlockCodec::kSign     ? sign_quantized(m, scale)
                     : codec == BlockCodec::kInt8   ? int8_quantized(m, scale)
                     : codec == BlockCodec::kLevel4 ? level_quantized(m, scale, 8)
                     : codec == BlockCodec::kLevel3 ? level_quantized(m, scale, 4)
                                                    : level_quantized(m, scale, 2);
  return q == 0 ? 0.0f : bits_float((float_bits(x) & 0x80000000u) | q);
}

}  // namespace dgs
