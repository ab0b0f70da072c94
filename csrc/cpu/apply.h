// SPDX-License-Identifier: Apache-2.0
// What was selected is put where it belongs: taken out of the worker's state, added to parameters and
// mirrors. Every index is looked at before the first element is written. Free of torch.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "common/formulas.h"
#include "common/segments.h"
#include "cpu/chunks.h"
#include "cpu/loops.h"

namespace dgs::cpu {

// The filled slots, cut into ranges that are relative to starts[segment].
inline std::vector<Range> entry_ranges(const Entries& entries, int64_t segments) {
  std::vector<Range> ranges;
  for (int64_t s = 0; s < segments; ++s)
    append_ranges(ranges, s, std::max<int64_t>(entries.nnz[s], 0), kEntries);
  return ranges;
}

// Calls visit(slot) for every slot of a range.
template <class Visit>
void for_each_slot(const Entries& entries, const Range& range, const Visit& visit) {
  const int64_t start = entries.starts[range.segment];
  for (int64_t j = start + range.begin; j < start + range.end; ++j) visit(j);
}

// The lowest of the numbers that tasks note, or -1.
class Lowest {
 public:
  void note(int64_t number) {
    for (int64_t seen = lowest_; number < seen && !lowest_.compare_exchange_weak(seen, number);) continue;
  }
  int64_t get() const { return lowest_ == INT64_MAX ? -1 : lowest_.load(); }

 private:
  std::atomic<int64_t> lowest_{INT64_MAX};
};

// The first slot of which inside(segment, index) does not hold, or -1.
template <class Inside, class Pool>
int64_t first_outside(const Entries& entries, const std::vector<Range>& ranges, const Inside& inside,
                      const Pool& pool) {
  Lowest first;
  pool(ranges.size(), [&](int64_t i) {
    bool all = true;  // no branch in the loop: it is there for what never happens
    for_each_slot(entries, ranges[i],
                  [&](int64_t j) { all &= inside(ranges[i].segment, entries.indices[j]); });
    if (all) return;
    int64_t bad = entries.starts[ranges[i].segment] + ranges[i].begin;
    while (inside(ranges[i].segment, entries.indices[bad])) ++bad;
    first.note(bad);
  });
  return first.get();
}

// The element of a segment that is written some slots later; it is most often in no cache.
inline int64_t later(const Segments& segments, const Entries& entries, const Range& range, int64_t slot) {
  const int64_t last = entries.starts[range.segment] + range.end - 1;
  return entries.indices[std::min(slot + kEarly, last)] - segments.offsets[range.segment];
}

template <class Pool>
void apply_velocity(float* const* velocity, const float* keep, const Segments& segments,
                    const Entries& entries, const std::vector<Range>& ranges, const Pool& pool) {
  pool(ranges.size(), [&](int64_t i) {
    const int64_t s = ranges[i].segment;
    const float share = keep[s];
    for_each_slot(entries, ranges[i], [&](int64_t j) {
      __builtin_prefetch(velocity[s] + later(segments, entries, ranges[i], j), 1);
      float& v = velocity[s][entries.indices[j] - segments.offsets[s]];
      v = kept(v, share, entries.values[j]);
    });
  });
}

template <class Pool>
void apply_dgc(float* const* velocity, float* const* residual, const int64_t* counts,
               const Segments& segments, const Entries& entries, const std::vector<Range>& ranges,
               const Pool& pool) {
  pool(ranges.size(), [&](int64_t i) {
    const int64_t s = ranges[i].segment;
    const bool masked = counts[s] < segments.size(s);  // sent whole: momentum is kept
    for_each_slot(entries, ranges[i], [&](int64_t j) {
      const int64_t next = later(segments, entries, ranges[i], j);
      __builtin_prefetch(residual[s] + next, 1);
      __builtin_prefetch(velocity[s] + next, 1);
      const int64_t at = entries.indices[j] - segments.offsets[s];
      const float q = entries.values[j];
      residual[s][at] = sub_rn(residual[s][at], q);
      if (masked && q != 0.0f) velocity[s][at] = 0.0f;
    });
  });
}

// The segment of flat index `at`, most often the same as, or one after, that of the index before.
inline int64_t segment_of(const Segments& segments, int64_t at, int64_t guess) {
  if (segments.offsets[guess] <= at && at < segments.offsets[guess + 1]) return guess;
  const int64_t* end = segments.offsets + segments.count + 1;
  return std::upper_bound(segments.offsets, end, at) - segments.offsets - 1;
}

// The entries of a segment's slots may lie in any segment.
template <class Pool>
void sparse_add(float* const* x, const Segments& segments, const Entries& entries,
                const std::vector<Range>& ranges, bool subtract, const Pool& pool) {
  pool(ranges.size(), [&](int64_t i) {
    int64_t s = ranges[i].segment;
    const int64_t last = entries.starts[s] + ranges[i].end - 1;
    for_each_slot(entries, ranges[i], [&](int64_t j) {
      const int64_t at = entries.indices[j];
      s = segment_of(segments, at, s);
      // Prefetched as if it were in the same segment, as it most often is; that it need not be does no harm.
      const auto next =
          static_cast<uint64_t>(entries.indices[std::min(j + kEarly, last)] - segments.offsets[s]);
      __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uint64_t>(x[s]) + 4 * next), 1);
      float& target = x[s][at - segments.offsets[s]];
      target = added(target, subtract ? -entries.values[j] : entries.values[j]);
    });
  });
}

// The lowest flat index at which x - q is not finite, or -1.
template <class Pool>
int64_t sparse_overflow(const float* const* x, const Segments& segments, const Entries& entries,
                        const std::vector<Range>& ranges, const Pool& pool) {
  Lowest lowest;
  pool(ranges.size(), [&](int64_t i) {
    int64_t s = ranges[i].segment, bad = INT64_MAX;
    const int64_t last = entries.starts[s] + ranges[i].end - 1;
    for_each_slot(entries, ranges[i], [&](int64_t j) {
      const int64_t at = entries.indices[j];
      s = segment_of(segments, at, s);
      // As in sparse_add, which comes next and finds the lines there.
      const auto next =
          static_cast<uint64_t>(entries.indices[std::min(j + kEarly, last)] - segments.offsets[s]);
      __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uint64_t>(x[s]) + 4 * next), 1);
      if (!finite(sub_rn(x[s][at - segments.offsets[s]], entries.values[j]))) bad = std::min(bad, at);
    });
    lowest.note(bad);
  });
  return lowest.get();
}

// values: [N]
template <class Pool>
int64_t dense_overflow(const Loops& loops, const float* const* x, const Segments& segments,
                       const float* values, const Pool& pool) {
  const auto ranges = all_ranges(segments);
  Lowest lowest;
  pool(ranges.size(), [&](int64_t i) {
    const auto [s, begin, end] = ranges[i];
    const float* q = values + segments.offsets[s];
    if (loops.largest_difference(x[s] + begin, q + begin, end - begin) < kInfinity) return;
    int64_t bad = begin;
    while (finite(sub_rn(x[s][bad], q[bad]))) ++bad;
    lowest.note(segments.offsets[s] + bad);
  });
  return lowest.get();
}

// values: [N]
template <class Pool>
void dense_add(const Loops& loops, float* const* x, const Segments& segments, const float* values,
               bool subtract, const Pool& pool) {
  const auto ranges = all_ranges(segments);
  pool(ranges.size(), [&](int64_t i) {
    const auto [s, begin, end] = ranges[i];
    loops.add(x[s] + begin, values + segments.offsets[s] + begin, end - begin, subtract);
  });
}

// values [n] become what their codec can say.
template <class Pool>
void quantize(const Loops& loops, float* values, int64_t n, Codec codec, const Pool& pool) {
  pool((n + kEntries - 1) / kEntries, [&](int64_t i) {
    loops.quantize(values + i * kEntries, std::min(kEntries, n - i * kEntries), codec);
  });
}

}  // namespace dgs::cpu
