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

// The rank among m sampled values of n whose magnitude somewhat more than k of the n reach, and almost surely
// at least k: the sample holds k * m / n of the k largest, give or take five standard deviations.
inline int64_t rank_for(int64_t k, int64_t m, int64_t n) {
  const double expected = static_cast<double>(k) * static_cast<double>(m) / static_cast<double>(n);
  return static_cast<int64_t>(expected + 5 * std::sqrt(expected) + 4);
}

// The rank-th largest magnitude (from 0) of the sample, at least 1.
inline uint32_t magnitude_at(const Loops& loops, const std::vector<float>& sample, int64_t rank) {
  const Run run{sample.data(), nullptr, static_cast<int64_t>(sample.size()), 0};
  return std::max<uint32_t>(cut_at(loops, &run, 1, 0, kNothing, rank + 1).magnitude, 1);
}

// A magnitude that somewhat more than k of the n entries of a segment should reach; 1 lets all nonzeros
// through. It is only an estimate: what it lets through is counted, and selected exactly.
inline uint32_t estimated_threshold(const Loops& loops, const Operand& operand, int64_t n, int64_t k) {
  const int64_t runs = std::clamp(n / (kRun * kSampleShare), std::min(kFewRuns, n / (8 * kRun)), kMaxRuns);
  const int64_t m = runs * kRun, rank = rank_for(k, m, n);
  if (rank >= m) return 1;
  std::vector<int64_t> begins(runs);
  for (int64_t r = 0; r < runs; ++r) begins[r] = run_begin(r, runs, n);
  std::vector<float> sample(m);
  loops.sample(operand, begins.data(), runs, kRun, sample.data());
  return magnitude_at(loops, sample, rank);
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
