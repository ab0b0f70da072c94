// SPDX-License-Identifier: Apache-2.0
// The loops of loops.h over the lanes of DGS_VECTOR, one of vector_*.h; compiled once for each
// variant, in a namespace of its own, so that no code made for one instruction set can be linked in for
// another. For the same reason nothing here uses the standard library.
#pragma once

#include "common/formulas.h"
#include "cpu/loops.h"
#include DGS_VECTOR

namespace dgs::cpu::DGS_VARIANT {

constexpr int64_t kWord = 64;     // elements whose comparisons make one word of bits
constexpr int64_t kStraight = 4;  // positions taken from a word without looking how many there are

// One element, where vectors do not fit.
DGS_HD void splat(float x, float& to) { to = x; }
DGS_HD void load(const float* p, float& to) { to = *p; }
DGS_HD void load(const Half* p, float& to) { to = from_float16(p->bits); }
DGS_HD void load(const BFloat16* p, float& to) { to = from_bfloat16(p->bits); }
DGS_HD void store(float* p, float x) { *p = x; }
DGS_HD void stream(float* p, float x) { *p = x; }
DGS_HD uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
using dgs::magnitude;
using dgs::mul_rn;
using dgs::sub_rn;

template <class T, class P>
DGS_HD T loaded(const P* p) {
  T x;
  load(p, x);
  return x;
}
template <class T>
DGS_HD T all(float x) {
  T lanes;
  splat(x, lanes);
  return lanes;
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

// The word from p[i] on, kAhead elements before it is needed: the processor's own prefetching ends with a
// page.
constexpr int64_t kAhead = 1024;
template <class P>
DGS_HD void prefetch(const P* p, int64_t i) {
  const char* ahead = reinterpret_cast<const char*>(p + i);
  for (int64_t b = 0; b < kWord * static_cast<int64_t>(sizeof(P)); b += 64) __builtin_prefetch(ahead + b);
}

// Each kind's arithmetic at element i, or at the elements i .. i + kLanes: returns what is selected from,
// puts what is stored, and adds to `largest` the magnitude of what is stored beside it.
struct Plain {
  const float* x;
  DGS_HD void ahead(int64_t i) const { prefetch(x, i); }
  template <class T, class Put, class M>
  DGS_HD T at(int64_t i, Put, M&) const {
    return loaded<T>(x + i);
  }
};

struct Difference {
  const float *x, *y;
  DGS_HD void ahead(int64_t i) const {
    prefetch(x, i);
    prefetch(y, i);
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

  DGS_HD void ahead(int64_t i) const {
    if constexpr (!__is_same(G, NoGradient)) prefetch(gradient, i);
    if constexpr (kDecay) prefetch(weights, i);
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

  DGS_HD void ahead(int64_t i) const {
    Rates<G, kDecay>::ahead(i);
    prefetch(v, i);
  }
  template <class T, class Put, class M>
  DGS_HD T at(int64_t i, Put put, M&) const {
    T u = loaded<T>(v + i);
    if constexpr (!__is_same(G, NoGradient))
      u = accumulated(u, all<T>(this->lr), this->decayed_at(i, loaded<T>(this->gradient + i)));
    put(u_out + i, u);
    return u;
  }
};

template <class G, bool kDecay, bool kNesterov>
struct Dgc : Rates<G, kDecay> {
  const float *v, *r;
  float *v_out, *r_out;

  DGS_HD void ahead(int64_t i) const {
    Rates<G, kDecay>::ahead(i);
    prefetch(v, i);
    prefetch(r, i);
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
    put(v_out + i, u);
    put(r_out + i, sum);
    largest = larger(largest, magnitude(u));
    return sum;
  }
};

// Calls f with the operand's arithmetic.
template <class G, bool kDecay, class F>
DGS_HD auto with_step(const Operand& o, const F& f) {
  const Rates<G, kDecay> rates{
      static_cast<const G*>(o.gradient.data), o.weights, o.lr, o.weight_decay, o.momentum, o.grad_scale};
  if (o.kind == Kind::kVelocity) return f(Velocity<G, kDecay>{rates, o.x, o.x_out});
  if (o.nesterov) return f(Dgc<G, kDecay, true>{rates, o.x, o.y, o.x_out, o.y_out});
  return f(Dgc<G, kDecay, false>{rates, o.x, o.y, o.x_out, o.y_out});
}
template <class F>
auto with_arithmetic(const Operand& o, const F& f) {
  if (o.kind == Kind::kPlain) return f(Plain{o.x});
  if (o.kind == Kind::kDifference) return f(Difference{o.x, o.y});
  const bool decay = o.weight_decay != 0.0f;
  switch (o.gradient.type) {
    case GradientType::kFloat32:
      return decay ? with_step<float, true>(o, f) : with_step<float, false>(o, f);
    case GradientType::kFloat16:
      return decay ? with_step<Half, true>(o, f) : with_step<Half, false>(o, f);
    case GradientType::kBFloat16:
      return decay ? with_step<BFloat16, true>(o, f) : with_step<BFloat16, false>(o, f);
    default:
      return with_step<NoGradient, false>(o, f);
  }
}

// Elements begin .. end one by one.
template <class Put, class Op>
Swept sweep_ends(const Op& op, int64_t begin, int64_t end, int64_t origin, uint32_t threshold, Candidates out,
                 Swept found) {
  for (int64_t i = begin; i < end; ++i) {
    const float x = op.template at<float>(i, Put{}, found.largest);
    const uint32_t m = magnitude(x);
    out.values[found.count] = x;
    out.at[found.count] = static_cast<uint32_t>(i - origin);
    found.count += m >= threshold;
    found.largest = larger(found.largest, m);
  }
  return found;
}

// Appends the elements i + b of the bits b of `word`, at: the position of element i. Few bits are the rule,
// and how many is known only when the operands have come from memory, so that a guess that fails stops
// everything until then: so some are taken without asking, and computed a second time, as what was streamed
// cannot be read again.
template <class Op>
DGS_HD int64_t append_bits(const Op& op, uint64_t word, int64_t i, uint32_t at, Candidates out,
                           int64_t count) {
  const int64_t end = count + __builtin_popcountll(word);
  uint32_t ignored = 0;
  const auto append_one = [&]() __attribute__((always_inline)) {
    const int64_t bit = __builtin_ctzll(word | uint64_t{1} << 63);
    out.values[count] = op.template at<float>(i + bit, Discard{}, ignored);
    out.at[count] = at + static_cast<uint32_t>(bit);
    word &= word - 1;
    ++count;
  };
#pragma GCC unroll 8
  for (int64_t j = 0; j < kStraight; ++j) append_one();
  while (__builtin_expect(count < end, 0)) append_one();
  return end;
}

// Elements begin .. end, a multiple of kWord of them. begin is where the vectors' stores are aligned, if they
// have to be.
template <class Put, class Op>
Swept sweep_words(const Op& op, int64_t begin, int64_t end, int64_t origin, uint32_t threshold,
                  Candidates out, Swept found) {
  const Bits bound = splat_bits(threshold - 1);
  Bits largest = splat_bits(found.largest);
  int64_t count = found.count;
  for (int64_t i = begin; i < end; i += kWord) {
    op.ahead(i + kAhead);
    uint64_t word = 0;
#pragma GCC unroll 16
    for (int64_t j = 0; j < kWord; j += kLanes) {
      const Bits m = magnitude(op.template at<Vec>(i + j, Put{}, largest));
      largest = larger(largest, m);
      word |= static_cast<uint64_t>(lanes_above(m, bound)) << j;
    }
    count = append_bits(op, word, i, static_cast<uint32_t>(i - origin), out, count);
  }
  return {count, larger(found.largest, largest_of(largest))};
}

template <class Put>
struct Sweep {
  int64_t begin, first, last, end;  // [first, last) in words
  uint32_t threshold;
  Candidates out;

  template <class Op>
  Swept operator()(const Op& op) const {
    Swept found = sweep_ends<Put>(op, begin, first, begin, threshold, out, {0, 0});
    found = sweep_words<Put>(op, first, last, begin, threshold, out, found);
    return sweep_ends<Put>(op, last, end, begin, threshold, out, found);
  }
};

// Elements until p + i is aligned as vectors are.
inline int64_t misaligned(const float* p, int64_t i) {
  const uint64_t past = reinterpret_cast<uint64_t>(p + i) / sizeof(float) % kLanes;
  return past == 0 ? 0 : kLanes - static_cast<int64_t>(past);
}

inline Swept sweep(const Operand& o, int64_t begin, int64_t end, uint32_t threshold, bool streamed,
                   Candidates out) {
  int64_t first = begin;
  if (o.kind == Kind::kPlain || o.kind == Kind::kDifference) streamed = false;
  if (o.kind == Kind::kDgc) streamed &= misaligned(o.x_out, 0) == misaligned(o.y_out, 0);
  if (streamed) {
    first += misaligned(o.x_out, begin);
    first = first < end ? first : end;
  }
  const int64_t last = first + (end - first) / kWord * kWord;
  if (!streamed) return with_arithmetic(o, Sweep<Store>{begin, first, last, end, threshold, out});
  const Swept found = with_arithmetic(o, Sweep<Stream>{begin, first, last, end, threshold, out});
  stream_end();
  return found;
}

struct Sample {
  const int64_t* begins;
  int64_t runs, length;
  float* out;

  template <class Op>
  void operator()(const Op& op) const {
    Bits ignored = splat_bits(0);
    uint32_t unused = 0;
    for (int64_t r = 0; r < runs; ++r) {
      float* to = out + r * length;
      int64_t j = 0;
      for (; j + kLanes <= length; j += kLanes)
        store(to + j, op.template at<Vec>(begins[r] + j, Discard{}, ignored));
      for (; j < length; ++j) to[j] = op.template at<float>(begins[r] + j, Discard{}, unused);
    }
  }
};
inline void sample(const Operand& o, const int64_t* begins, int64_t runs, int64_t length, float* out) {
  with_arithmetic(o, Sample{begins, runs, length, out});
}

inline int64_t keep(const float* values, const uint32_t* at, int64_t n, uint32_t cut, const Room& room) {
  const Bits bound = splat_bits(cut - 1);
  int64_t i = 0, count = 0;
  for (; i + kLanes <= n && count + kLanes <= room.size; i += kLanes) {
    const Vec x = loaded<Vec>(values + i);
    count = append_kept(x, magnitude(x), bound, at + i, room.base, room.values, room.indices, count);
  }
  for (; i < n && count < room.size; ++i) {
    room.values[count] = values[i];
    room.indices[count] = room.base + at[i];
    count += magnitude(values[i]) >= cut;
  }
  return count;
}

inline int64_t between(const float* values, int64_t n, uint32_t low, uint32_t high, uint32_t* out) {
  const Bits above = splat_bits(low - 1), last = splat_bits(high);
  int64_t i = 0, count = 0;
  for (; i + kLanes <= n; i += kLanes)
    count = append_between(magnitude(loaded<Vec>(values + i)), above, last, out, count);
  for (; i < n; ++i) {
    const uint32_t m = magnitude(values[i]);
    out[count] = m;
    count += low <= m && m <= high;
  }
  return count;
}

template <class G, bool kDecay>
bool scale_by(const Rates<G, kDecay>& rates, float* q, int64_t begin, int64_t end) {
  Bits largest = splat_bits(0);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    const Vec x = mul_rn(all<Vec>(rates.lr), rates.decayed_at(i, loaded<Vec>(rates.gradient + i)));
    store(q + i, x);
    largest = larger(largest, magnitude(x));
  }
  uint32_t last = largest_of(largest);
  for (; i < end; ++i) {
    q[i] = mul_rn(rates.lr, rates.decayed_at(i, loaded<float>(rates.gradient + i)));
    last = larger(last, magnitude(q[i]));
  }
  return last < kInfinity;
}
template <class G>
bool scale_as(const Gradient& g, const float* weights, float* q, int64_t begin, int64_t end, float lr,
              float weight_decay) {
  const G* data = static_cast<const G*>(g.data);
  if (weight_decay == 0.0f)
    return scale_by(Rates<G, false>{data, weights, lr, 0.0f, 0.0f, 1.0f}, q, begin, end);
  return scale_by(Rates<G, true>{data, weights, lr, weight_decay, 0.0f, 1.0f}, q, begin, end);
}
inline bool scale(const Gradient& g, const float* weights, float* q, int64_t begin, int64_t end, float lr,
                  float weight_decay) {
  if (g.type == GradientType::kFloat32) return scale_as<float>(g, weights, q, begin, end, lr, weight_decay);
  if (g.type == GradientType::kFloat16) return scale_as<Half>(g, weights, q, begin, end, lr, weight_decay);
  if (g.type == GradientType::kBFloat16)
    return scale_as<BFloat16>(g, weights, q, begin, end, lr, weight_decay);
  for (int64_t i = begin; i < end; ++i) q[i] = 0.0f;
  return true;
}

template <Codec kCodec>
void quantize_as(float* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) values[i] = quantized(values[i], kCodec);
}
inline void quantize(float* values, int64_t n, Codec codec) {
  if (codec == Codec::kFloat32) quantize_as<Codec::kFloat32>(values, n);
  if (codec == Codec::kFloat16) quantize_as<Codec::kFloat16>(values, n);
  if (codec == Codec::kBFloat16) quantize_as<Codec::kBFloat16>(values, n);
}

inline void add(float* x, const float* q, int64_t n, bool subtract) {
  if (subtract) {
    for (int64_t i = 0; i < n; ++i) x[i] = added(x[i], -q[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) x[i] = added(x[i], q[i]);
  }
}

}  // namespace dgs::cpu::DGS_VARIANT
