// SPDX-License-Identifier: Apache-2.0
// What the kernels' tests expect, and how they say what did not hold.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "oracle.h"
#include "problem.h"

using oracle::Floats;

constexpr int kMostFailures = 20;  // then the rest is not run
inline int checks = 0, failures = 0;
inline std::string context;

inline void expect(bool holds, const char* what) {
  ++checks;
  if (holds) return;
  if (++failures <= kMostFailures) std::printf("FAILED %s: %s\n", context.c_str(), what);
}

inline bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// A finite segment's new state must be the same bits; what a segment that is not finite leaves is scratch.
inline bool same_bits_where(bool finite, const Floats& a, const Floats& b) {
  return !finite || same_bits(a, b);
}

inline void expect_selection(const Layout& layout, const Buffers& got, int64_t s,
                             const oracle::Selected& want) {
  const int64_t start = layout.starts[Layout::at(s)], end = start + layout.slots(s);
  std::vector<int64_t> indices(static_cast<size_t>(layout.slots(s)),
                               -7);  // slots beyond nnz stay as they were
  Floats values(indices.size(), -7.0f);
  for (size_t j = 0; j < want.indices.size(); ++j) {
    indices[j] = layout.offsets[Layout::at(s)] + want.indices[j];
    values[j] = want.values[j];
  }
  expect(got.nnz[Layout::at(s)] == want.nnz, "nnz");
  expect(std::equal(indices.begin(), indices.end(), got.indices.begin() + start), "indices");
  expect(same_bits(values, {got.values.begin() + start, got.values.begin() + end}), "values");
}
