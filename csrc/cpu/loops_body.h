// SPDX-License-Identifier: Apache-2.0
// The selecting loops of loops.h over the lanes of DGS_VECTOR, one of vector_*.h; compiled once for each
// variant, in a namespace of its own, so that no code made for one instruction set can be linked in for
// another. For the same reason nothing here uses the standard library.
#pragma once

#include "cpu/arithmetic_body.h"

namespace dgs::cpu::DGS_VARIANT {

constexpr int64_t kStraight = 4;    // positions taken from a word without looking how many there are
constexpr int64_t kLine = 16;       // values of a cache line, prefetched of each run of a sample
constexpr int64_t kRunsAhead = 16;  // from prefetching to use, in runs

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
    op.template ahead<kWord>(i + kAhead);
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

inline Swept sweep(const Operand& o, int64_t begin, int64_t end, const Reach& reach, bool streamed,
                   Candidates out) {
  int64_t first = begin;
  if (o.kind == Kind::kPlain || o.kind == Kind::kDifference) streamed = false;
  if (o.kind == Kind::kDgc) streamed &= misaligned(o.x_out, 0) == misaligned(o.y_out, 0);
  if (streamed) {
    first += misaligned(o.x_out, begin);
    first = first < end ? first : end;
  }
  const int64_t last = first + (end - first) / kWord * kWord;
  if (!streamed) return with_arithmetic(o, reach.take, Sweep<Store>{begin, first, last, end, reach.low, out});
  const Swept found = with_arithmetic(o, reach.take, Sweep<Stream>{begin, first, last, end, reach.low, out});
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
      if (r + kRunsAhead < runs) op.template ahead<kLine>(begins[r + kRunsAhead]);
      float* to = out + r * length;
      int64_t j = 0;
      for (; j + kLanes <= length; j += kLanes)
        store(to + j, op.template at<Vec>(begins[r] + j, Discard{}, ignored));
      for (; j < length; ++j) to[j] = op.template at<float>(begins[r] + j, Discard{}, unused);
    }
  }
};
inline void sample(const Operand& o, const int64_t* begins, int64_t runs, int64_t length, float* out) {
  with_arithmetic(o, kNothing, Sample{begins, runs, length, out});
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

inline int64_t within(const float* values, int64_t n, uint32_t low, uint32_t high, uint32_t* out) {
  const Bits above = splat_bits(low - 1), last = splat_bits(high);
  int64_t i = 0, count = 0;
  for (; i + kLanes <= n; i += kLanes)
    count =
        append_within(magnitude(loaded<Vec>(values + i)), above, last, static_cast<uint32_t>(i), out, count);
  for (; i < n; ++i) {
    const uint32_t m = magnitude(values[i]);
    out[count] = static_cast<uint32_t>(i);
    count += low <= m && m <= high;
  }
  return count;
}

}  // namespace dgs::cpu::DGS_VARIANT
