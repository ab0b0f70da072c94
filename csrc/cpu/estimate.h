// SPDX-License-Identifier: Apache-2.0
// A threshold for one segment from a sample of this step. It is only an estimate: what it lets through is
// counted, and selected exactly. Free of torch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "common/formulas.h"
#include "cpu/chunks.h"

namespace dgs::cpu {

constexpr int64_t kRun = 16;         // neighbours sampled together: a cache line
constexpr int64_t kMaxRuns = 256;    // 4096 values of a large segment
constexpr int64_t kSampleShare = 8;  // at most an eighth of a small one

// Where run r of `runs` begins: somewhere in the r-th of `runs` equal parts of [0, n), scattered so that the
// sample does not beat with the rows of a tensor.
inline int64_t run_begin(int64_t r, int64_t runs, int64_t n) {
  const int64_t part = n / runs;
  const uint64_t scatter = (static_cast<uint64_t>(r) + 1) * 0x9e3779b97f4a7c15u >> 33;
  return r * part + static_cast<int64_t>(scatter % static_cast<uint64_t>(part - kRun + 1));
}

// The rank among m sampled values of n whose magnitude about 2k of the n reach, and almost surely at least k:
// the sample holds k * m / n of the k largest, give or take four standard deviations.
inline int64_t rank_for(int64_t k, int64_t m, int64_t n) {
  const double expected = static_cast<double>(k) * static_cast<double>(m) / static_cast<double>(n);
  return static_cast<int64_t>(std::max(2 * expected, expected + 4 * std::sqrt(expected) + 4));
}

// A magnitude that somewhat more than k of the n entries of segment s should reach; 1 lets all nonzeros
// through.
template <class Source>
uint32_t estimated_threshold(const Source& source, int64_t s, int64_t n, int64_t k) {
  const int64_t runs = std::min(kMaxRuns, n / (kRun * kSampleShare));
  const int64_t m = runs * kRun, rank = rank_for(k, m, n);
  if (rank >= m) return 1;
  std::vector<uint32_t> sample(m);
  float scratch[kBlock];
  for (int64_t r = 0; r < runs; ++r) {
    const float* x = source.peek(s, run_begin(r, runs, n), kRun, scratch);
    for (int64_t i = 0; i < kRun; ++i) sample[r * kRun + i] = magnitude(x[i]);
  }
  std::nth_element(sample.begin(), sample.begin() + rank, sample.end(), std::greater<>());
  return std::max<uint32_t>(sample[rank], 1);
}

}  // namespace dgs::cpu
