// SPDX-License-Identifier: Apache-2.0
// Four lanes in the compiler's own vectors: SSE2 on x86-64, NEON on aarch64, whatever there is elsewhere. The
// same names as in vector_avx2.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/formulas.h"

namespace dgs::cpu::DGS_VARIANT {

constexpr int64_t kLanes = 4;

struct Vec {
  typedef float Lanes __attribute__((vector_size(16)));
  Lanes v;
};
struct Bits {
  typedef int32_t Lanes __attribute__((vector_size(16)));
  Lanes v;
};

DGS_HD Vec add_rn(Vec a, Vec b) { return {a.v + b.v}; }
DGS_HD Vec sub_rn(Vec a, Vec b) { return {a.v - b.v}; }
DGS_HD Vec mul_rn(Vec a, Vec b) { return {a.v * b.v}; }

DGS_HD void splat(float x, Vec& to) { to.v = Vec::Lanes{x, x, x, x}; }
DGS_HD Bits splat_bits(uint32_t x) {
  const auto i = static_cast<int32_t>(x);
  return {Bits::Lanes{i, i, i, i}};
}
DGS_HD void splat(uint32_t x, Bits& to) { to = splat_bits(x); }
DGS_HD void load(const float* p, Vec& to) { memcpy(&to.v, p, sizeof to.v); }
DGS_HD void load(const Half* p, Vec& to) {
  for (int i = 0; i < kLanes; ++i) to.v[i] = from_float16(p[i].bits);
}
DGS_HD void load(const BFloat16* p, Vec& to) {
  for (int i = 0; i < kLanes; ++i) to.v[i] = from_bfloat16(p[i].bits);
}
DGS_HD void store(float* p, Vec x) { memcpy(p, &x.v, sizeof x.v); }
DGS_HD void stream(float* p, Vec x) { store(p, x); }
DGS_HD void stream_end() {}

DGS_HD Bits magnitude(Vec x) {
  Bits bits;
  memcpy(&bits, &x, sizeof bits);
  return {bits.v & 0x7fffffff};
}
DGS_HD Bits larger(Bits a, Bits b) { return {a.v > b.v ? a.v : b.v}; }
DGS_HD uint32_t largest_of(Bits a) {
  int32_t m = a.v[0];
  for (int i = 1; i < kLanes; ++i) m = a.v[i] > m ? a.v[i] : m;
  return static_cast<uint32_t>(m);
}
// The lanes below 2^-126 become +0.
DGS_HD Vec flush(Vec x) {
  Bits bits;
  memcpy(&bits, &x, sizeof bits);
  bits.v &= magnitude(x).v >= 0x00800000;
  memcpy(&x, &bits, sizeof x);
  return x;
}
// a in the lanes where m is above the bound's, b in the others.
DGS_HD Vec where_above(Bits m, Bits bound, Vec a, Vec b) { return {m.v > bound.v ? a.v : b.v}; }
// A bit for each lane above the bound's.
DGS_HD uint32_t lanes_above(Bits m, Bits bound) {
  const Bits::Lanes bits = (m.v > bound.v) & Bits::Lanes{1, 2, 4, 8};
  return static_cast<uint32_t>(bits[0] | bits[1] | bits[2] | bits[3]);
}

// Appends the lanes of x whose magnitude m is above the bound, and their positions moved by `base`.
DGS_HD int64_t append_kept(Vec x, Bits m, Bits bound, const uint32_t* at, int64_t base, float* values,
                           int64_t* indices, int64_t count) {
  for (int i = 0; i < kLanes; ++i) {
    values[count] = x.v[i];
    indices[count] = base + at[i];
    count += m.v[i] > bound.v[0];
  }
  return count;
}
// Appends the positions, from `first` on, of the lanes in (above, last].
DGS_HD int64_t append_within(Bits m, Bits above, Bits last, uint32_t first, uint32_t* out, int64_t count) {
  for (int i = 0; i < kLanes; ++i) {
    out[count] = first + static_cast<uint32_t>(i);
    count += m.v[i] > above.v[0] && m.v[i] <= last.v[0];
  }
  return count;
}

}  // namespace dgs::cpu::DGS_VARIANT
