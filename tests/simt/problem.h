// SPDX-License-Identifier: Apache-2.0
// Problems for the kernels: layouts, values that are hard to select from, and buffers as the ops are given
// them.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/segments.h"
#include "oracle.h"

enum class Values { kNormal, kTies, kZeros, kEqual, kDenormal, kWide, kNotFinite };
constexpr Values kAllValues[] = {Values::kNormal,   Values::kTies, Values::kZeros,    Values::kEqual,
                                 Values::kDenormal, Values::kWide, Values::kNotFinite};

inline oracle::Floats make_values(Values kind, size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  oracle::Floats x(n);
  for (float& v : x) {
    const float z = normal(random);
    switch (kind) {
      case Values::kNormal:
      case Values::kNotFinite:
        v = z;
        break;
      case Values::kTies:
        v = std::round(2 * z) / 2;
        break;
      case Values::kZeros:
        v = random() % 50 == 0 ? z : random() % 2 == 0 ? 0.0f : -0.0f;
        break;
      case Values::kEqual:
        v = z < 0 ? -0.75f : 0.75f;
        break;
      case Values::kDenormal:
        v = z * 1e-41f;
        break;
      case Values::kWide:
        v = std::ldexp(z, static_cast<int>(random() % 250) - 125);
        break;
    }
  }
  if (kind == Values::kNotFinite && n > 0)
    x[random() % n] = seed % 2 == 0 ? std::numeric_limits<float>::infinity() : std::nanf("");
  return x;
}

// Several segments, k of each, and the slots of a selection: room for k, here and there for more.
struct Layout {
  std::vector<int64_t> offsets{0}, counts, starts{0};

  Layout(const std::vector<int64_t>& sizes, double density) {
    for (const int64_t n : sizes)
      append(n, static_cast<int64_t>(std::ceil(density * static_cast<double>(n))));
  }
  void append(int64_t n, int64_t k) {
    offsets.push_back(offsets.back() + n);
    counts.push_back(k);
    starts.push_back(starts.back() + k + static_cast<int64_t>(counts.size()) % 3);
  }
  dgs::Segments segments() const { return {offsets.data(), size()}; }
  int64_t size() const { return static_cast<int64_t>(counts.size()); }
  int64_t numel() const { return offsets.back(); }
  int64_t segment_size(int64_t s) const { return offsets[at(s) + 1] - offsets[at(s)]; }
  int64_t slots(int64_t s) const { return starts[at(s) + 1] - starts[at(s)]; }
  static size_t at(int64_t s) { return static_cast<size_t>(s); }

  // Segment s of a flat vector.
  template <class T>
  std::vector<T> slice(const std::vector<T>& flat, int64_t s) const {
    return {flat.begin() + offsets[at(s)], flat.begin() + offsets[at(s) + 1]};
  }
  // Each segment of its own kind of values, beginning with `kind`: what one holds must not touch the others.
  oracle::Floats values(Values kind, uint32_t seed, bool mixed = false) const {
    oracle::Floats x;
    for (int64_t s = 0; s < size(); ++s) {
      const auto here = mixed && s % 2 == 1 ? Values::kNormal : kind;
      const oracle::Floats part =
          make_values(here, static_cast<size_t>(segment_size(s)), seed + static_cast<uint32_t>(s));
      x.insert(x.end(), part.begin(), part.end());
    }
    return x;
  }
};

// A selection's buffers, filled with what no op would write.
struct Buffers {
  std::vector<int64_t> indices, nnz;
  oracle::Floats values;

  explicit Buffers(const Layout& layout)
      : indices(static_cast<size_t>(layout.starts.back()), -7),
        nnz(static_cast<size_t>(layout.size()), -7),
        values(static_cast<size_t>(layout.starts.back()), -7.0f) {}
  dgs::Slots slots(const Layout& layout) {
    return {indices.data(), values.data(), layout.starts.data(), nnz.data()};
  }
  dgs::Entries entries(const Layout& layout) const {
    return {indices.data(), values.data(), layout.starts.data(), nnz.data()};
  }
};
