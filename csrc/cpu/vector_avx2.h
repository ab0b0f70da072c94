// SPDX-License-Identifier: Apache-2.0
// Eight lanes of AVX2, with F16C for float16. The same names as in vector_portable.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/formulas.h"

namespace dgs::cpu::DGS_VARIANT {

constexpr int64_t kLanes = 8;

struct Vec {
  __m256 v;
};
struct Bits {
  __m256i v;
};

DGS_HD Vec add_rn(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
DGS_HD Vec sub_rn(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
DGS_HD Vec mul_rn(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }

DGS_HD void splat(float x, Vec& to) { to.v = _mm256_set1_ps(x); }
DGS_HD Bits splat_bits(uint32_t x) { return {_mm256_set1_epi32(static_cast<int32_t>(x))}; }
DGS_HD void splat(uint32_t x, Bits& to) { to = splat_bits(x); }
DGS_HD void load(const float* p, Vec& to) { to.v = _mm256_loadu_ps(p); }
DGS_HD void load(const Half* p, Vec& to) {
  to.v = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
DGS_HD void load(const BFloat16* p, Vec& to) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  to.v = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
DGS_HD void store(float* p, Vec x) { _mm256_storeu_ps(p, x.v); }
DGS_HD void stream(float* p, Vec x) { _mm256_stream_ps(p, x.v); }
DGS_HD void stream_end() { _mm_sfence(); }

DGS_HD Bits magnitude(Vec x) {
  return {_mm256_and_si256(_mm256_castps_si256(x.v), _mm256_set1_epi32(0x7fffffff))};
}
DGS_HD Bits larger(Bits a, Bits b) { return {_mm256_max_epi32(a.v, b.v)}; }
DGS_HD uint32_t largest_of(Bits a) {
  alignas(32) uint32_t lanes[kLanes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), a.v);
  uint32_t m = lanes[0];
  for (int i = 1; i < kLanes; ++i) m = lanes[i] > m ? lanes[i] : m;
  return m;
}
// The lanes below 2^-126 become +0.
DGS_HD Vec flush(Vec x) {
  const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x00800000), magnitude(x).v);
  return {_mm256_andnot_ps(_mm256_castsi256_ps(below), x.v)};
}
// a in the lanes where m is above the bound's, b in the others.
DGS_HD Vec where_above(Bits m, Bits bound, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(_mm256_cmpgt_epi32(m.v, bound.v)))};
}
DGS_HD uint32_t mask_of(__m256i lanes) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
}
// A bit for each lane above the bound's.
DGS_HD uint32_t lanes_above(Bits m, Bits bound) { return mask_of(_mm256_cmpgt_epi32(m.v, bound.v)); }

// Row `mask`: the lanes whose bit is set, in order.
struct Compress {
  uint64_t rows[256];
};
constexpr Compress make_compress() {
  Compress table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    unsigned to = 0;
    for (uint64_t lane = 0; lane < 8; ++lane) {
      if (mask >> lane & 1) table.rows[mask] |= lane << 8 * to++;
    }
  }
  return table;
}
alignas(64) constexpr Compress kCompress = make_compress();

DGS_HD __m256i order_of(uint32_t mask) {
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(kCompress.rows[mask])));
}
DGS_HD void store_lanes(void* p, __m256i lanes) { _mm256_storeu_si256(static_cast<__m256i*>(p), lanes); }

// Appends the lanes of x whose magnitude m is above the bound, and their positions moved by `base`. Writes
// kLanes.
DGS_HD int64_t append_kept(Vec x, Bits m, Bits bound, const uint32_t* at, int64_t base, float* values,
                           int64_t* indices, int64_t count) {
  const uint32_t mask = lanes_above(m, bound);
  const __m256i order = order_of(mask), from = _mm256_set1_epi64x(base);
  store(values + count, {_mm256_permutevar8x32_ps(x.v, order)});
  const __m256i positions =
      _mm256_permutevar8x32_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)), order);
  const __m256i low = _mm256_cvtepu32_epi64(_mm256_castsi256_si128(positions));
  const __m256i high = _mm256_cvtepu32_epi64(_mm256_extracti128_si256(positions, 1));
  store_lanes(indices + count, _mm256_add_epi64(low, from));
  store_lanes(indices + count + 4, _mm256_add_epi64(high, from));
  return count + __builtin_popcount(mask);
}
// Appends the positions, from `first` on, of the lanes in (above, last]. Writes kLanes.
DGS_HD int64_t append_within(Bits m, Bits above, Bits last, uint32_t first, uint32_t* out, int64_t count) {
  const __m256i inside =
      _mm256_andnot_si256(_mm256_cmpgt_epi32(m.v, last.v), _mm256_cmpgt_epi32(m.v, above.v));
  const uint32_t mask = mask_of(inside);
  store_lanes(out + count, _mm256_add_epi32(order_of(mask), splat_bits(first).v));
  return count + __builtin_popcount(mask);
}

}  // namespace dgs::cpu::DGS_VARIANT
