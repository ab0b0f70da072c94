// SPDX-License-Identifier: Apache-2.0
// What the tests of the CPU kernels share: threads, a model with its selection, and loops that say plainly
// what is meant.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/capability.h"
#include "cpu/select.h"
#include "threads.h"

namespace dgs::test {

struct Model {
  std::vector<int64_t> offsets{0}, counts, starts{0}, indices, nnz;
  std::vector<float> values;

  Model(const std::vector<int64_t>& sizes, double density) {
    for (const int64_t n : sizes) {
      offsets.push_back(offsets.back() + n);
      counts.push_back(std::min(n, static_cast<int64_t>(std::ceil(density * static_cast<double>(n)))));
      starts.push_back(starts.back() + counts.back());
    }
    indices.resize(static_cast<std::size_t>(starts.back()));
    values.resize(indices.size());
    nnz.resize(counts.size());
  }
  Segments segments() const { return {offsets.data(), static_cast<int64_t>(counts.size())}; }
  Slots slots() { return {indices.data(), values.data(), starts.data(), nnz.data()}; }
  Entries entries() const { return {indices.data(), values.data(), starts.data(), nnz.data()}; }
  template <class T>
  std::vector<T*> parts(std::vector<float>& flat) const {
    std::vector<T*> pointers;
    for (std::size_t s = 0; s < counts.size(); ++s) pointers.push_back(flat.data() + offsets[s]);
    return pointers;
  }
};

inline std::vector<float> normal(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& value : x) value = distribution(random);
  return x;
}

// The flat indices of the k largest nonzeros of x in [begin, end), ascending.
inline std::vector<int64_t> largest(const std::vector<float>& x, int64_t begin, int64_t end, int64_t k) {
  std::vector<int64_t> order(static_cast<std::size_t>(end - begin));
  std::iota(order.begin(), order.end(), begin);
  const auto size = [&](int64_t i) { return std::fabs(x[static_cast<std::size_t>(i)]); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return size(a) > size(b); });
  order.resize(static_cast<std::size_t>(k));
  std::erase_if(order, [&](int64_t i) { return size(i) == 0.0f; });
  std::sort(order.begin(), order.end());
  return order;
}

// That `model` holds the k largest of x in each segment.
inline void check_selected(const Model& model, const std::vector<float>& x) {
  for (std::size_t s = 0; s < model.counts.size(); ++s) {
    const auto want = largest(x, model.offsets[s], model.offsets[s + 1], model.counts[s]);
    CHECK_EQ(model.nnz[s], static_cast<int64_t>(want.size()));
    const auto first = static_cast<std::size_t>(model.starts[s]);
    int64_t wrong = 0;
    for (std::size_t j = 0; j < want.size() && model.nnz[s] == static_cast<int64_t>(want.size()); ++j) {
      wrong += model.indices[first + j] != want[j];
      wrong += model.values[first + j] != x[static_cast<std::size_t>(want[j])];
    }
    CHECK_EQ(wrong, 0);
  }
}

// What this machine can run; each test does it all.
inline std::vector<const cpu::Loops*> variants() {
  auto known = cpu::capabilities();
  std::erase(known, nullptr);
  return known;
}

inline std::vector<cpu::Operand> plain(const std::vector<const float*>& parts) {
  std::vector<cpu::Operand> operands;
  for (const float* x : parts) operands.push_back({.kind = cpu::Kind::kPlain, .x = x});
  return operands;
}

inline void select_from(const cpu::Loops& loops, const std::vector<cpu::Operand>& operands, Model& model,
                        int64_t threads, bool sampled = false) {
  cpu::select_top(loops, operands, model.segments(), {model.counts.data(), sampled}, model.slots(),
                  Threads{threads});
}

inline void select_plain(const cpu::Loops& loops, std::vector<float>& x, Model& model, int64_t threads) {
  select_from(loops, plain(model.parts<const float>(x)), model, threads);
}

// Of one task and of several, and none.
inline const std::vector<int64_t> kSizes{3, 0, 140'000, 1, 65'537, 5'000, 64};

}  // namespace dgs::test
