// SPDX-License-Identifier: Apache-2.0
// What is computed at one element, or at the lanes of one vector (DGS_VECTOR, one of vector_*.h), by each
// kind of operand. Compiled once for each variant, as loops_body.h says.
#pragma once

#include "common/formulas.h"
#include "cpu/loops.h"
#include DGS_VECTOR

namespace dgs::cpu::DGS_VARIANT {

constexpr int64_t kWord = 64;  // elements that are taken at a time

// One element, where vectors do not fit.
DGS_HD void splat(float x, float& to) { to = x; }
DGS_HD void load(const float* p, float& to) { to = *p; }
DGS_HD void load(const Half* p, float& to) { to = from_float16(p->bits); }
DGS_HD void load(const BFloat16* p, float& to) { to = from_bfloat16(p->bits); }
DGS_HD void store(float* p, float x) { *p = x; }
DGS_HD void stream(float* p, float x) { *p = x; }
DGS_HD void splat(uint32_t x, uint32_t& to) { to = x; }
DGS_HD uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
DGS_HD float where_above(uint32_t m, uint32_t bound, float a, float b) { return m > bound ? a : b; }
using dgs::magnitude;
using dgs::mul_rn;
using dgs::sub_rn;

template <class T, class P>
DGS_HD T loaded(const P* p) {
  T x;
  load(p, x);
  return x;
}
template <class T, class X>
DGS_HD T all(X x) {
  T lanes;
  splat(x, lanes);
  return lanes;
}

// Elements until p + i is aligned as vectors are.
inline int64_t misaligned(const float* p, int64_t i) {
  const uint64_t past = reinterpret_cast<uint64_t>(p + i) / sizeof(float) % kLanes;
  return past == 0 ? 0 : kLanes - static_cast<int64_t>(past);
}

// What happens to a result.
struct Discard {
  template <class T>
  DGS_HD void operator()(float*, T) const {}
};
struct Store {
  template <class T>
  DGS_HD void operator()(float* p, T x) const {
    store(p, x);
  }
};
struct Stream {
  template <class T>
  DGS_HD void operator()(float* p, T x) const {
    stream(p, x);
  }
};

// From prefetching to use, in elements; the processor's own prefetching ends with a page. What is under way
// of four streams fills half of a first-level cache of 32 KiB.
constexpr int64_t kAhead = 1024;

// The lines of p[i .. i + kLength), past the second-level cache where the processor can: what is read once
// is not to drive out what the caller works with, all of which the next call had to fetch again.
template <int64_t kLength, class P>
DGS_HD void prefetch(const P* p, int64_t i) {
  const char* ahead = reinterpret_cast<const char*>(p + i);
  for (int64_t b = 0; b < kLength * static_cast<int64_t>(sizeof(P)); b += 64)
    __builtin_prefetch(ahead + b, 0, 0);
}

// Each kind's arithmetic at element i, or at the elements i .. i + kLanes: returns what is selected from,
// puts what is stored (of magnitudes above `bound` what is left when they have been sent), and adds to
// `largest` the magnitude of what goes beside it.
struct Plain {
  const float* x;
  template <int64_t kLength>
  DGS_HD void ahead(int64_t i) const {
    prefetch<kLength>(x, i);
  }
  template <class T, class Put, class M>
  DGS_HD T at(int64_t i, Put, M&) const {
    return loaded<T>(x + i);
  }
};

struct Difference {
  const float *x, *y;
  template <int64_t kLength>
  DGS_HD void ahead(int64_t i) const {
    prefetch<kLength>(x, i);
    prefetch<kLength>(y, i);
  }
  template <class T, class Put, class M>
  DGS_HD T at(int64_t i, Put, M&) const {
    return sub_rn(loaded<T>(x + i), loaded<T>(y + i));
  }
};

struct NoGradient {};

// kDecay: weight_decay is not 0. Without it the weights are not read.
template <class G, bool kDecay>
struct Rates {
  const G* gradient;
  const float* weights;
  float lr, weight_decay, momentum, grad_scale;
  uint32_t bound;

  template <int64_t kLength>
  DGS_HD void ahead(int64_t i) const {
    if constexpr (!__is_same(G, NoGradient)) prefetch<kLength>(gradient, i);
    if constexpr (kDecay) prefetch<kLength>(weights, i);
  }
  template <class T>
  DGS_HD T decayed_at(int64_t i, T g) const {
    if constexpr (kDecay)
      return plus_decay(g, all<T>(weight_decay), loaded<T>(weights + i));
    else
      return g;
  }
};

template <class G, bool kDecay>
struct Velocity : Rates<G, kDecay> {
  const float* v;
  float* u_out;
  float keep;

  template <int64_t kLength>
  DGS_HD void ahead(int64_t i) const {
    Rates<G, kDecay>::template ahead<kLength>(i);
    prefetch<kLength>(v, i);
  }
  template <class T, class Put, class M>
  DGS_HD T at(int64_t i, Put put, M&) const {
    T u = loaded<T>(v + i);
    if constexpr (!__is_same(G, NoGradient))
      u = accumulated(u, all<T>(this->lr), this->decayed_at(i, loaded<T>(this->gradient + i)));
    put(u_out + i, where_above(magnitude(u), all<M>(this->bound), kept(u, all<T>(keep), u), u));
    return u;
  }
};

template <class G, bool kDecay, bool kNesterov>
struct Dgc : Rates<G, kDecay> {
  const float *v, *r;
  float *v_out, *r_out;
  uint32_t mask_bound;  // of the magnitudes that lose their momentum

  template <int64_t kLength>
  DGS_HD void ahead(int64_t i) const {
    Rates<G, kDecay>::template ahead<kLength>(i);
    prefetch<kLength>(v, i);
    prefetch<kLength>(r, i);
  }
  template <class T, class Put, class M>
  DGS_HD T at(int64_t i, Put put, M& largest) const {
    T u = loaded<T>(v + i), sum = loaded<T>(r + i);
    if constexpr (!__is_same(G, NoGradient)) {
      const T m = all<T>(this->momentum);
      const T scaled = mul_rn(loaded<T>(this->gradient + i), all<T>(this->grad_scale));
      const T g = this->decayed_at(i, scaled);
      u = dgc_velocity(u, m, g);
      sum = accumulated(sum, all<T>(this->lr), dgc_update(u, m, g, kNesterov));
    }
    const M m = magnitude(sum);
    put(v_out + i, where_above(m, all<M>(mask_bound), all<T>(0.0f), u));
    put(r_out + i, where_above(m, all<M>(this->bound), all<T>(0.0f), sum));
    largest = larger(largest, magnitude(u));
    return sum;
  }
};

// The dense step's: q = lr * g, flushed.
template <class G, bool kDecay>
struct Dense : Rates<G, kDecay> {
  float* q;

  template <class T, class Put, class M>
  DGS_HD T at(int64_t i, Put put, M&) const {
    const T x = scaled(all<T>(this->lr), this->decayed_at(i, loaded<T>(this->gradient + i)));
    put(q + i, x);
    return x;
  }
};

// Calls f with the operand's arithmetic.
template <class G, bool kDecay, class F>
DGS_HD auto with_step(const Operand& o, uint32_t bound, const F& f) {
  const Rates<G, kDecay> rates{static_cast<const G*>(o.gradient.data),
                               o.weights,
                               o.lr,
                               o.weight_decay,
                               o.momentum,
                               o.grad_scale,
                               bound};
  if (o.kind == Kind::kVelocity) return f(Velocity<G, kDecay>{rates, o.x, o.x_out, o.keep});
  const uint32_t mask_bound = o.masked ? bound : kNothing;
  if (o.nesterov) return f(Dgc<G, kDecay, true>{rates, o.x, o.y, o.x_out, o.y_out, mask_bound});
  return f(Dgc<G, kDecay, false>{rates, o.x, o.y, o.x_out, o.y_out, mask_bound});
}
// take: as in Reach.
template <class F>
auto with_arithmetic(const Operand& o, uint32_t take, const F& f) {
  const uint32_t bound = take == kNothing ? kNothing : take - 1;
  if (o.kind == Kind::kPlain) return f(Plain{o.x});
  if (o.kind == Kind::kDifference) return f(Difference{o.x, o.y});
  const bool decay = o.weight_decay != 0.0f;
  switch (o.gradient.type) {
    case GradientType::kFloat32:
      return decay ? with_step<float, true>(o, bound, f) : with_step<float, false>(o, bound, f);
    case GradientType::kFloat16:
      return decay ? with_step<Half, true>(o, bound, f) : with_step<Half, false>(o, bound, f);
    case GradientType::kBFloat16:
      return decay ? with_step<BFloat16, true>(o, bound, f) : with_step<BFloat16, false>(o, bound, f);
    default:
      return with_step<NoGradient, false>(o, bound, f);
  }
}

}  // namespace dgs::cpu::DGS_VARIANT
