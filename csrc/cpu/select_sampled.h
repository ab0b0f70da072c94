// SPDX-License-Identifier: Apache-2.0
// Selection by a sampled threshold alone: the count floats. Which entries are sampled is part of the op's
// meaning (sampled_threshold in dgs_ext/reference.py). Free of torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/select.h"

namespace dgs::cpu {

constexpr int64_t kSample = 4096;

// The magnitude that about k of the n entries of segment s reach, from every (n / kSample)-th; 1 lets all
// nonzeros through.
template <class Source>
uint32_t sampled_threshold(const Source& source, int64_t s, int64_t n, int64_t k) {
  if (k >= n) return 1;
  const int64_t stride = std::max<int64_t>(1, n / kSample);
  const int64_t m = (n + stride - 1) / stride;
  std::vector<uint32_t> sample(m);
  float scratch;
  for (int64_t i = 0; i < m; ++i) sample[i] = magnitude(*source.peek(s, i * stride, 1, &scratch));
  const int64_t rank = std::max<int64_t>(1, (k * m + n / 2) / n);
  std::nth_element(sample.begin(), sample.begin() + (rank - 1), sample.end(), std::greater<>());
  return std::max<uint32_t>(sample[rank - 1], 1);
}

// The first slots.size(s) entries of segment s among those that its ranges [n] found.
inline void write_first(const Segments& segments, const Slots& slots, int64_t s, const Found* found,
                        const Range* ranges, int64_t n) {
  slots.nnz[s] = -1;
  for (int64_t i = 0; i < n; ++i) {
    if (!found[i].finite) return;
  }
  Writer out(segments, slots, s);
  for (int64_t i = 0; i < n; ++i) {
    const auto room = static_cast<size_t>(slots.size(s) - out.written());
    const size_t take = std::min(room, found[i].candidates.size());
    for (size_t c = 0; c < take; ++c) {
      out.write(ranges[i].begin + found[i].candidates[c].at, found[i].candidates[c].value);
    }
  }
  slots.nnz[s] = out.written();
}

template <class Source, class Pool>
void select_sampled(const Source& source, const Segments& segments, const int64_t* counts, const Slots& slots,
                    const Pool& pool) {
  std::vector<uint32_t> thresholds(segments.count);
  pool(segments.count,
       [&](int64_t s) { thresholds[s] = sampled_threshold(source, s, segments.size(s), counts[s]); });
  const auto ranges = all_ranges(segments);
  std::vector<Found> found(ranges.size());
  pool(ranges.size(), [&](int64_t i) { found[i] = sweep(source, ranges[i], thresholds[ranges[i].segment]); });
  std::vector<int64_t> first(segments.count + 1, 0);
  for (const Range& range : ranges) ++first[range.segment + 1];
  for (int64_t s = 0; s < segments.count; ++s) first[s + 1] += first[s];
  pool(segments.count, [&](int64_t s) {
    write_first(segments, slots, s, found.data() + first[s], ranges.data() + first[s],
                first[s + 1] - first[s]);
  });
  counters.add(segments.numel(), 0);
}

template <class Source, class Pool>
void select_from(const Source& source, const Segments& segments, const int64_t* counts, bool sampled,
                 const Slots& slots, const Pool& pool) {
  if (sampled) {
    select_sampled(source, segments, counts, slots, pool);
  } else {
    select_top(source, segments, counts, slots, pool);
  }
}

}  // namespace dgs::cpu
