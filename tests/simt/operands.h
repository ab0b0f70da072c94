// SPDX-License-Identifier: Apache-2.0
// The model-sized operands of the kernels' tests, at any alignment.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "checks.h"

// How an operand lies in memory. flat: one array, segments at their offsets. list: each segment in memory of
// its own, so that a sanitizer sees its ends; `lead` elements past a 16-byte boundary.
struct Placement {
  bool list;
  size_t lead;
};

template <class T>
class Placed {
 public:
  Placed(const Layout& layout, const std::vector<T>& flat, Placement at) : layout_(layout), at_(at) {
    if (at.list)
      for (int64_t s = 0; s < layout.size(); ++s) place(layout.slice(flat, s));
    else
      place(flat);
  }
  T* segment(int64_t s) {
    return at_.list ? parts_[Layout::at(s)].data() + at_.lead
                    : parts_[0].data() + at_.lead + layout_.offsets[Layout::at(s)];
  }
  std::vector<T> read(int64_t s) { return {segment(s), segment(s) + layout_.segment_size(s)}; }

 private:
  void place(const std::vector<T>& part) {
    parts_.emplace_back(at_.lead, T{});
    parts_.back().insert(parts_.back().end(), part.begin(), part.end());
    parts_.back().shrink_to_fit();
  }

  const Layout& layout_;
  Placement at_;
  std::vector<std::vector<T>> parts_;
};
using Operand = Placed<float>;

// The gradients of a layout, in three types; every fifth segment has none.
class Gradients {
 public:
  Gradients(const Layout& layout, Values kind, uint32_t seed, Placement at)
      : layout_(layout),
        floats_(rounded(layout, kind, seed)),
        full_(layout, floats_, at),
        half_(layout, halves_, at) {}

  dgs::Gradient operator[](int64_t s) {
    const auto type = type_of(s);
    if (type == dgs::GradientType::kNone) return {nullptr, type};
    if (type == dgs::GradientType::kFloat32) return {full_.segment(s), type};
    return {half_.segment(s), type};
  }
  bool has(int64_t s) const { return type_of(s) != dgs::GradientType::kNone; }
  float at(int64_t s, size_t i) const {
    return floats_[static_cast<size_t>(layout_.offsets[Layout::at(s)]) + i];
  }

 private:
  static dgs::GradientType type_of(int64_t s) {
    return s % 5 == 4 ? dgs::GradientType::kNone : static_cast<dgs::GradientType>(1 + s % 3);
  }
  // Values that each segment's type holds exactly; their 16 bits go to halves_.
  Floats rounded(const Layout& layout, Values kind, uint32_t seed) {
    Floats x = layout.values(kind, seed);
    halves_.resize(x.size());
    for (int64_t s = 0; s < layout.size(); ++s)
      for (auto i = static_cast<size_t>(layout.offsets[Layout::at(s)]);
           i < static_cast<size_t>(layout.offsets[Layout::at(s) + 1]); ++i)
        halves_[i] = narrow(type_of(s), x[i]);
    return x;
  }
  static uint16_t narrow(dgs::GradientType type, float& x) {
    if (type == dgs::GradientType::kBFloat16) {
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      bits &= 0xffff0000u;
      if (std::isnan(x)) bits = 0x7fc00000u;
      std::memcpy(&x, &bits, 4);
      return static_cast<uint16_t>(bits >> 16);
    }
    if (type != dgs::GradientType::kFloat16) return 0;
    const auto half = static_cast<_Float16>(x);
    x = static_cast<float>(half);
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    return bits;
  }

  const Layout& layout_;
  std::vector<uint16_t> halves_;
  Floats floats_;
  Operand full_;
  Placed<uint16_t> half_;
};

// One problem. Operand i of an op lies at place(i).
struct Case {
  Layout layout;
  Values kind;
  uint32_t seed;
  int64_t chunk;  // of slots
  int tiles;      // of a chunk of elements
  bool list;

  // Aligned in all arrays; all of them off by the same; each by another.
  Placement place(size_t i) const {
    const size_t lead = seed % 3 == 0 ? 0 : seed % 3 == 1 ? seed % 4 : (seed + i) % 4;
    return {list, lead};
  }
};
