// SPDX-License-Identifier: Apache-2.0
// What the ops mean, in plain C++ on whole segments, written from dgs_ext/reference.py: sorting where the
// kernels count digits, no chunks, no threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace oracle {

using Floats = std::vector<float>;

struct Selected {
  int64_t nnz = 0;
  std::vector<int64_t> indices;  // within the segment, ascending
  Floats values;
};

inline bool all_finite(const Floats& x) {
  return std::all_of(x.begin(), x.end(), [](float v) { return std::isfinite(v); });
}

inline Selected take(const Floats& x, const std::vector<int64_t>& keep) {
  if (!all_finite(x)) return {-1, {}, {}};
  Selected out{static_cast<int64_t>(keep.size()), keep, {}};
  for (const int64_t i : keep) out.values.push_back(x[static_cast<size_t>(i)]);
  return out;
}

inline Selected top(const Floats& x, int64_t k) {
  std::vector<int64_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  if (!all_finite(x)) return {-1, {}, {}};
  const auto magnitude = [&x](int64_t i) { return std::fabs(x[static_cast<size_t>(i)]); };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return magnitude(a) > magnitude(b); });
  order.resize(static_cast<size_t>(k));
  std::erase_if(order, [&](int64_t i) { return magnitude(i) == 0; });
  std::sort(order.begin(), order.end());
  return take(x, order);
}

inline Selected sampled(const Floats& x, int64_t k, int64_t slots) {
  const int64_t n = static_cast<int64_t>(x.size());
  float threshold = 0;
  if (k < n) {
    Floats sample;
    for (int64_t i = 0; i < n; i += std::max<int64_t>(1, n / 4096))
      sample.push_back(std::fabs(x[static_cast<size_t>(i)]));
    const int64_t m = static_cast<int64_t>(sample.size());
    const int64_t rank = std::max<int64_t>(1, (k * m + n / 2) / n);
    std::sort(sample.rbegin(), sample.rend());
    threshold = sample[static_cast<size_t>(rank - 1)];
  }
  std::vector<int64_t> keep;
  for (int64_t i = 0; i < n && static_cast<int64_t>(keep.size()) < slots; ++i) {
    const float v = x[static_cast<size_t>(i)];
    if (std::fabs(v) >= threshold && v != 0) keep.push_back(i);
  }
  return take(x, keep);
}

inline float flush(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? 0.0f : x; }

// Every product and sum is stored before it is used, so that each is rounded on its own.
inline float product(float a, float b) {
  volatile float r = a * b;
  return r;
}
inline float sum(float a, float b) {
  volatile float r = a + b;
  return r;
}

inline float decayed(float grad, float weight_decay, float w) {
  return weight_decay == 0 ? grad : sum(grad, product(w, weight_decay));
}

struct DgcState {
  float u, r;
};
inline DgcState dgc(float grad, float w, DgcState s, float lr, float weight_decay, float m, float scale,
                    bool nesterov) {
  const float g = decayed(product(grad, scale), weight_decay, w);
  const float u = sum(product(s.u, m), g);
  const float update = nesterov ? sum(g, product(u, m)) : u;
  return {u, sum(s.r, product(update, lr))};
}

}  // namespace oracle
