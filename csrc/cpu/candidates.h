// SPDX-License-Identifier: Apache-2.0
// The entries of a range that reach a threshold, and the exact k among them. Free of torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "common/formulas.h"
#include "common/segments.h"
#include "cpu/chunks.h"

namespace dgs::cpu {

constexpr uint32_t kInfinity = 0x7f800000u;  // the first magnitude that is not finite

struct Candidate {
  uint32_t at;  // relative to the beginning of its range
  float value;
};

// What one task found in its range, in ascending order.
struct Found {
  std::vector<Candidate> candidates;
  bool finite = true;
};

// The k largest: every magnitude above `magnitude`, and the first `ties` that equal it.
struct Cut {
  uint32_t magnitude = 0;
  int64_t ties = 0;
};

// The Cut of the k largest among more than k >= 1 `magnitudes` in any order, which are rearranged.
inline Cut cut_at(std::vector<uint32_t>& magnitudes, int64_t k) {
  const auto last = magnitudes.begin() + (k - 1);
  std::nth_element(magnitudes.begin(), last, magnitudes.end(), std::greater<>());
  const uint32_t smallest = *last;
  const auto above = std::count_if(magnitudes.begin(), last, [=](uint32_t m) { return m > smallest; });
  return {smallest, k - above};
}

inline uint32_t largest_magnitude(const float* x, int64_t n) {
  int32_t largest = 0;  // signed: SSE2 compares those, and no magnitude has the highest bit
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, static_cast<int32_t>(magnitude(x[i])));
  return static_cast<uint32_t>(largest);
}

inline bool all_finite(const float* x, int64_t n) { return largest_magnitude(x, n) < kInfinity; }

// Appends the entries of x [n <= kBlock] with magnitude >= threshold; `at` is the position of x[0] in the
// range.
inline void collect(const float* x, int64_t n, uint32_t threshold, int64_t at,
                    std::vector<Candidate>& candidates) {
  Candidate block[kBlock];
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    block[count] = {static_cast<uint32_t>(at + i), x[i]};
    count += magnitude(x[i]) >= threshold;
  }
  candidates.insert(candidates.end(), block, block + count);
}

// Writes entries of segment s one behind the other into its slots.
class Writer {
 public:
  Writer(const Segments& segments, const Slots& slots, int64_t s, int64_t skip = 0)
      : offset_(segments.offsets[s]), first_(slots.starts[s]), next_(first_ + skip), slots_(slots) {}

  void write(int64_t at, float value) {
    slots_.indices[next_] = offset_ + at;
    slots_.values[next_] = value;
    ++next_;
  }
  int64_t written() const { return next_ - first_; }

 private:
  int64_t offset_, first_, next_;
  const Slots& slots_;
};

// Writes what `cut` keeps of the candidates of one range; uses up cut.ties.
inline void write_kept(const Found& found, const Range& range, Cut& cut, Writer& out) {
  for (const Candidate& c : found.candidates) {
    const uint32_t m = magnitude(c.value);
    if (m > cut.magnitude || (m == cut.magnitude && cut.ties-- > 0)) out.write(range.begin + c.at, c.value);
  }
}

}  // namespace dgs::cpu
