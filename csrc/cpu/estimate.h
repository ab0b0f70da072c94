// SPDX-License-Identifier: Apache-2.0
// A threshold for one segment from a sample of this step. Free of torch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/choose.h"
#include "cpu/chunks.h"
#include "cpu/loops.h"

namespace dgs::cpu {

constexpr int64_t kRun = 16;           // neighbours sampled together: a cache line
constexpr int64_t kMaxRuns = 512;      // 8192 values of a large segment
constexpr int64_t kSampleShare = 256;  // below that, this part of the segment,
constexpr int64_t kFewRuns = 64;       // but not fewer

// Where run r of `runs` begins: somewhere in the r-th of `runs` equal parts of [0, n), scattered so that the
// sample does not beat with the rows of a tensor, and with a cache line where the tensor begins with one.
inline int64_t run_begin(int64_t r, int64_t runs, int64_t n) {
  const int64_t part = n / runs;
  const uint64_t scatter = (static_cast<uint64_t>(r) + 1) * 0x9e3779b97f4a7c15u >> 33;
  return (r * part + static_cast<int64_t>(scatter % static_cast<uint64_t>(part - kRun + 1))) / kRun * kRun;
}

// The rank in a sample whose magnitude somewhat more than k entries reach, and almost surely at least k: it
// holds `expected` = k * m / n of the k largest, give or take five standard deviations.
inline int64_t rank_for(double expected) {
  return static_cast<int64_t>(expected + 5 * std::sqrt(expected) + 4);
}

// The rank-th largest magnitude (from 0) of the sample, at least 1.
inline uint32_t magnitude_at(const Loops& loops, const std::vector<float>& sample, int64_t rank) {
  const Run run{sample.data(), nullptr, static_cast<int64_t>(sample.size()), 0};
  return std::max<uint32_t>(cut_at(loops, &run, 1, 0, kNothing, rank + 1).magnitude, 1);
}

// A magnitude that about k of the n entries reach, rather fewer: to undo what was taken of an entry that is
// not among the k costs more than to take it later; none where ties blur it. `sample` holds k·m/n = expected
// of them, all of at least `low`.
inline uint32_t likely_chosen(const Loops& loops, const std::vector<float>& sample, double expected,
                              uint32_t low) {
  const auto m = static_cast<int64_t>(sample.size());
  std::vector<uint32_t> reached(m + kSpareLanes);
  const int64_t found = loops.within(sample.data(), m, low, kNothing, reached.data());
  for (int64_t i = 0; i < found; ++i) reached[i] = magnitude(sample[reached[i]]);
  const auto rank = static_cast<int64_t>(std::max(expected - 0.5 * std::sqrt(expected), 0.0));
  if (rank >= found) return kNothing;
  std::nth_element(reached.begin(), reached.begin() + rank, reached.begin() + found, std::greater<>());
  return reached[rank] == low ? kNothing : reached[rank];
}

// What somewhat more than k of the n entries of a segment should reach (1 lets all nonzeros through), and
// what about k of them do. They are only estimates: what they let through is counted, and selected exactly.
inline Reach estimated_reach(const Loops& loops, const Operand& operand, int64_t n, int64_t k) {
  const int64_t runs = std::clamp(n / (kRun * kSampleShare), std::min(kFewRuns, n / (8 * kRun)), kMaxRuns);
  const int64_t m = runs * kRun;
  const double expected = static_cast<double>(k) * static_cast<double>(m) / static_cast<double>(n);
  const int64_t rank = rank_for(expected);
  if (rank >= m) return {1, kNothing};
  std::vector<int64_t> begins(runs);
  for (int64_t r = 0; r < runs; ++r) begins[r] = run_begin(r, runs, n);
  std::vector<float> sample(m);
  loops.sample(operand, begins.data(), runs, kRun, sample.data());
  const uint32_t low = magnitude_at(loops, sample, rank);
  return {low, likely_chosen(loops, sample, expected, low)};
}

constexpr int64_t kSample = 4096;

// The magnitude that about k of the n entries reach, from every (n / kSample)-th; 1 lets all nonzeros
// through. Which entries are sampled is part of the op's meaning (sampled_threshold in dgs_ext/reference.py).
inline uint32_t sampled_threshold(const Loops& loops, const Operand& operand, int64_t n, int64_t k) {
  if (k >= n) return 1;
  const int64_t stride = std::max<int64_t>(1, n / kSample);
  const int64_t m = (n + stride - 1) / stride;
  std::vector<int64_t> begins(m);
  for (int64_t i = 0; i < m; ++i) begins[i] = i * stride;
  std::vector<float> sample(m);
  loops.sample(operand, begins.data(), m, 1, sample.data());
  const int64_t rank = std::max<int64_t>(1, (k * m + n / 2) / n);
  return magnitude_at(loops, sample, rank - 1);
}

}  // namespace dgs::cpu
