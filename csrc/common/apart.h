// SPDX-License-Identifier: Apache-2.0
// That no operand of an op shares memory with one that the op writes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/checks.h"

namespace dgs {

// Where an op's operands lie. Several may be read from one place; none may share what is written.
class Extents {
 public:
  // i: of a list's element, -1 for what is none.
  void add(const char* name, int64_t i, const void* begin, int64_t bytes, bool written) {
    const char* first = static_cast<const char*>(begin);
    if (bytes > 0) all_.push_back({name, i, first, first + bytes, written});
  }

  void check_apart(const Call& call) const {
    auto sorted = all_;
    std::sort(sorted.begin(), sorted.end(),
              [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
    const Extent* longest = nullptr;          // of those before, the one that reaches furthest
    const Extent* longest_written = nullptr;  // and of those that are written
    for (const Extent& e : sorted) {
      const Extent* other = e.written ? longest : longest_written;
      DGS_CHECK(call, other == nullptr || other->end <= e.begin, element_name(e.name, e.i), " and ",
                other == nullptr ? "" : element_name(other->name, other->i),
                " share memory; what is written needs a buffer of its own");
      if (longest == nullptr || e.end > longest->end) longest = &e;
      if (e.written && (longest_written == nullptr || e.end > longest_written->end)) longest_written = &e;
    }
  }

 private:
  struct Extent {
    const char* name;
    int64_t i;
    const char* begin;
    const char* end;
    bool written;
  };
  std::vector<Extent> all_;
};

}  // namespace dgs
