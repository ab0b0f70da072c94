// SPDX-License-Identifier: Apache-2.0
// How the elements of a model become tasks of about equal size. Free of torch.
//
// A pool is any callable: pool(n, body) calls body(i) once for each i in [0, n), on any of its threads, in
// any order, and returns when all are done. No result here depends on the number of threads or on the order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/segments.h"

namespace dgs::cpu {

constexpr int64_t kBlock = 1024;       // values worked on at a time: they stay in the first-level cache
constexpr int64_t kChunk = 1 << 15;    // values of one task, whose candidates fit on the stack
constexpr int64_t kEntries = 1 << 14;  // entries of one task: each may touch a line of its own
constexpr int64_t kEarly = 192;        // entries from prefetching such a line to its use

// A range of one segment, relative to its beginning.
struct Range {
  int64_t segment;
  int64_t begin;
  int64_t end;
};

// The ranges of at most `length` that cover the `size` elements of segment s, appended to `ranges`.
inline void append_ranges(std::vector<Range>& ranges, int64_t s, int64_t size, int64_t length = kChunk) {
  for (int64_t begin = 0; begin < size; begin += length) {
    ranges.push_back({s, begin, std::min(begin + length, size)});
  }
}

inline std::vector<Range> all_ranges(const Segments& segments) {
  std::vector<Range> ranges;
  ranges.reserve(segments.count + segments.numel() / kChunk);
  for (int64_t s = 0; s < segments.count; ++s) append_ranges(ranges, s, segments.size(s));
  return ranges;
}

// Calls visit(begin, n) for consecutive blocks of at most kBlock.
template <class Visit>
void for_each_block(const Range& range, const Visit& visit) {
  for (int64_t begin = range.begin; begin < range.end; begin += kBlock) {
    visit(begin, std::min(kBlock, range.end - begin));
  }
}

}  // namespace dgs::cpu
