// SPDX-License-Identifier: Apache-2.0
// That no operand of an op shares memory with one that the op writes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/checks.h"

namespace dgs {

// Several operands may be read from one place; none may share what is written.
struct Operand {
  const char* name;
  Tensors tensors;
  bool written;
};

struct Extent {
  const char* name;
  int64_t i;
  const char* begin;
  const char* end;
  bool written;
};

inline std::vector<Extent> extents_of(const std::vector<Operand>& operands) {
  std::vector<Extent> extents;
  for (const Operand& operand : operands) {
    for (size_t i = 0; i < operand.tensors.size(); ++i) {
      const Tensor& t = operand.tensors[i];
      const char* begin = data<const char>(t);
      const auto bytes = t.numel() * static_cast<int64_t>(t.element_size());
      const int64_t at = operand.tensors.size() == 1 ? -1 : static_cast<int64_t>(i);
      if (bytes > 0) extents.push_back({operand.name, at, begin, begin + bytes, operand.written});
    }
  }
  return extents;
}

inline void check_apart(const Call& call, const std::vector<Operand>& operands) {
  auto extents = extents_of(operands);
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  const Extent* longest = nullptr;          // of those before, the one that reaches furthest
  const Extent* longest_written = nullptr;  // and of those that are written
  for (const Extent& e : extents) {
    const Extent* other = e.written ? longest : longest_written;
    DGS_CHECK(call, other == nullptr || other->end <= e.begin, element_name(e.name, e.i), " and ",
              other == nullptr ? "" : element_name(other->name, other->i),
              " share memory; what is written needs a buffer of its own");
    if (longest == nullptr || e.end > longest->end) longest = &e;
    if (e.written && (longest_written == nullptr || e.end > longest_written->end)) longest_written = &e;
  }
}

}  // namespace dgs
