// SPDX-License-Identifier: Apache-2.0
// Sixteen lanes of AVX-512, a cache line. The same names as in vector_portable.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/formulas.h"

namespace dgs::cpu::DGS_VARIANT {

constexpr int64_t kLanes = 16;

struct Vec {
  __m512 v;
};
struct Bits {
  __m512i v;
};

DGS_HD Vec add_rn(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
DGS_HD Vec sub_rn(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
DGS_HD Vec mul_rn(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }

DGS_HD void splat(float x, Vec& to) { to.v = _mm512_set1_ps(x); }
DGS_HD Bits splat_bits(uint32_t x) { return {_mm512_set1_epi32(static_cast<int32_t>(x))}; }
DGS_HD void splat(uint32_t x, Bits& to) { to = splat_bits(x); }
DGS_HD void load(const float* p, Vec& to) { to.v = _mm512_loadu_ps(p); }
DGS_HD void load(const Half* p, Vec& to) {
  to.v = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
DGS_HD void load(const BFloat16* p, Vec& to) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  to.v = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
DGS_HD void store(float* p, Vec x) { _mm512_storeu_ps(p, x.v); }
DGS_HD void stream(float* p, Vec x) { _mm512_stream_ps(p, x.v); }
DGS_HD void stream_end() { _mm_sfence(); }

DGS_HD Bits magnitude(Vec x) {
  return {_mm512_and_si512(_mm512_castps_si512(x.v), _mm512_set1_epi32(0x7fffffff))};
}
DGS_HD Bits larger(Bits a, Bits b) { return {_mm512_max_epi32(a.v, b.v)}; }
DGS_HD uint32_t largest_of(Bits a) { return static_cast<uint32_t>(_mm512_reduce_max_epi32(a.v)); }
// The lanes below 2^-126 become +0.
DGS_HD Vec flush(Vec x) {
  const __mmask16 normal = _mm512_cmpge_epi32_mask(magnitude(x).v, _mm512_set1_epi32(0x00800000));
  return {_mm512_maskz_mov_ps(normal, x.v)};
}
// a in the lanes where m is above the bound's, b in the others.
DGS_HD Vec where_above(Bits m, Bits bound, Vec a, Vec b) {
  return {_mm512_mask_mov_ps(b.v, _mm512_cmpgt_epi32_mask(m.v, bound.v), a.v)};
}
// A bit for each lane above the bound's.
DGS_HD uint32_t lanes_above(Bits m, Bits bound) { return _mm512_cmpgt_epi32_mask(m.v, bound.v); }

// Appends the lanes of x whose magnitude m is above the bound, and their positions moved by `base`. Writes
// kLanes.
DGS_HD int64_t append_kept(Vec x, Bits m, Bits bound, const uint32_t* at, int64_t base, float* values,
                           int64_t* indices, int64_t count) {
  const __mmask16 mask = _mm512_cmpgt_epi32_mask(m.v, bound.v);
  store(values + count, {_mm512_maskz_compress_ps(mask, x.v)});
  const __m512i positions =
      _mm512_maskz_compress_epi32(mask, _mm512_loadu_si512(reinterpret_cast<const __m512i*>(at)));
  const __m512i from = _mm512_set1_epi64(base);
  const __m512i low = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(positions));
  const __m512i high = _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(positions, 1));
  _mm512_storeu_si512(indices + count, _mm512_add_epi64(low, from));
  _mm512_storeu_si512(indices + count + 8, _mm512_add_epi64(high, from));
  return count + __builtin_popcount(mask);
}
// Appends the positions, from `first` on, of the lanes in (above, last]. Writes kLanes.
DGS_HD int64_t append_within(Bits m, Bits above, Bits last, uint32_t first, uint32_t* out, int64_t count) {
  const __mmask16 mask = _mm512_mask_cmple_epi32_mask(_mm512_cmpgt_epi32_mask(m.v, above.v), m.v, last.v);
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i positions = _mm512_add_epi32(lanes, splat_bits(first).v);
  _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(mask, positions));
  return count + __builtin_popcount(mask);
}

}  // namespace dgs::cpu::DGS_VARIANT
