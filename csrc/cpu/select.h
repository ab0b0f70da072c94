// SPDX-License-Identifier: Apache-2.0
// Exactly the k largest of every segment, in one sweep over the source: what passes an estimated threshold is
// kept as a candidate, and the k are chosen among those. Free of torch.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "cpu/candidates.h"
#include "cpu/chunks.h"
#include "cpu/counters.h"
#include "cpu/estimate.h"
#include "cpu/radix.h"
#include "cpu/sources.h"

namespace dgs::cpu {

constexpr int64_t kWorthSampling = 512;  // smaller segments take all nonzeros as candidates
constexpr int64_t kSparse = 16;          // candidates are worth it where k <= n / kSparse
constexpr uint32_t kNone = UINT32_MAX;   // a threshold that nothing passes

// Stores `range` and returns its candidates.
template <class Source>
Found sweep(const Source& source, const Range& range, uint32_t threshold) {
  Found found;
  float scratch[kBlock];
  for_each_block(range, [&](int64_t begin, int64_t n) {
    const float* x = source.store(range.segment, begin, n, scratch, found.finite);
    const uint32_t largest = largest_magnitude(x, n);
    found.finite &= largest < kInfinity;
    if (largest >= threshold) collect(x, n, threshold, begin - range.begin, found.candidates);
  });
  return found;
}

template <class Source, class Pool>
class Selector {
 public:
  Selector(const Source& source, const Segments& segments, const int64_t* counts, const Slots& slots,
           const Pool& pool)
      : source_(source), segments_(segments), counts_(counts), slots_(slots), pool_(pool) {}

  void run() {
    plan();
    pool_(large_.size(), [&](int64_t j) { estimate(large_[j]); });
    const auto large_ranges = static_cast<int64_t>(ranges_.size());
    pool_(large_ranges + small_.size(),
          [&](int64_t i) { i < large_ranges ? sweep_large(i) : select_small(small_[i - large_ranges]); });
    pool_(large_.size(), [&](int64_t j) { finish(large_[j], total_[j]); });
    std::vector<int64_t> again;
    int64_t read_again = 0;
    for (const Large& large : large_) {
      if (!large.again) continue;
      again.push_back(large.segment);
      read_again += segments_.size(large.segment);
    }
    counters.add(segments_.numel(), read_again);
    RadixSelect<Source, Pool>(source_, segments_, slots_, pool_).run(again, counts_);
  }

 private:
  // A segment of several ranges.
  struct Large {
    int64_t segment, first, last;  // its ranges
    uint32_t threshold = kNone;
    bool again = false;  // to be selected by RadixSelect
  };

  static bool worth_sampling(int64_t n, int64_t k) {
    return n >= kWorthSampling && k > 0 && k <= n / kSparse;
  }
  // With more candidates than this they are given up, so that ties cannot fill the memory.
  int64_t most_candidates(int64_t s) const { return segments_.size(s) / 4; }

  void plan() {
    for (int64_t s = 0; s < segments_.count; ++s) {
      if (segments_.size(s) <= kChunk) {
        small_.push_back(s);
        continue;
      }
      const auto first = static_cast<int64_t>(ranges_.size());
      append_ranges(ranges_, s, segments_.size(s));
      owner_.resize(ranges_.size(), large_.size());
      large_.push_back({s, first, static_cast<int64_t>(ranges_.size())});
    }
    found_.resize(ranges_.size());
    total_ = std::vector<std::atomic<int64_t>>(large_.size());
  }

  void estimate(Large& large) const {
    const int64_t n = segments_.size(large.segment), k = counts_[large.segment];
    if (worth_sampling(n, k)) large.threshold = estimated_threshold(source_, large.segment, n, k);
  }

  void sweep_large(int64_t i) {
    const Large& large = large_[owner_[i]];
    std::atomic<int64_t>& total = total_[owner_[i]];
    const bool many = total.load(std::memory_order_relaxed) > most_candidates(large.segment);
    found_[i] = sweep(source_, ranges_[i], many ? kNone : large.threshold);
    total.fetch_add(static_cast<int64_t>(found_[i].candidates.size()), std::memory_order_relaxed);
  }

  void select_small(int64_t s) const {
    const int64_t n = segments_.size(s), k = counts_[s];
    const Range range{s, 0, n};
    uint32_t threshold = k == 0 ? kNone : worth_sampling(n, k) ? estimated_threshold(source_, s, n, k) : 1;
    Found found = sweep(source_, range, threshold);
    if (found.finite && threshold > 1 && static_cast<int64_t>(found.candidates.size()) < k) {
      counters.add(0, n);
      found.candidates.clear();
      float scratch[kBlock];
      for_each_block(range, [&](int64_t begin, int64_t m) {
        collect(source_.load(s, begin, m, scratch), m, 1, begin, found.candidates);
      });
    }
    choose(s, &found, &range, 1);
  }

  void finish(Large& large, int64_t count) {
    const int64_t s = large.segment, k = counts_[s];
    const bool complete = large.threshold == 1 || count >= k;
    large.again = k > 0 && (!complete || count > most_candidates(s) || large.threshold == kNone);
    for (int64_t i = large.first; i < large.last; ++i) large.again &= found_[i].finite;
    if (!large.again) choose(s, &found_[large.first], &ranges_[large.first], large.last - large.first);
  }

  // Writes the k of segment s among the candidates of its n ranges, all of which are known to be there.
  void choose(int64_t s, const Found* found, const Range* ranges, int64_t n) const {
    slots_.nnz[s] = -1;
    int64_t total = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (!found[i].finite) return;
      total += static_cast<int64_t>(found[i].candidates.size());
    }
    Cut cut = total <= counts_[s] ? Cut{} : cut_among(found, n, total, counts_[s]);
    Writer out(segments_, slots_, s);
    for (int64_t i = 0; i < n; ++i) write_kept(found[i], ranges[i], cut, out);
    slots_.nnz[s] = out.written();
  }

  static Cut cut_among(const Found* found, int64_t n, int64_t total, int64_t k) {
    std::vector<uint32_t> magnitudes;
    magnitudes.reserve(total);
    for (int64_t i = 0; i < n; ++i) {
      for (const Candidate& c : found[i].candidates) magnitudes.push_back(magnitude(c.value));
    }
    return cut_at(magnitudes, k);
  }

  const Source& source_;
  const Segments& segments_;
  const int64_t* counts_;
  const Slots& slots_;
  const Pool& pool_;
  std::vector<int64_t> small_;  // segments of one range: one task each
  std::vector<Large> large_;
  std::vector<std::atomic<int64_t>> total_;  // [large_]: candidates so far
  std::vector<Range> ranges_;                // of the large segments
  std::vector<Found> found_;                 // [ranges_]
  std::vector<size_t> owner_;                // [ranges_]: which of large_
};

// Stores what `source` stores, and selects the counts[s] largest of each segment s.
template <class Source, class Pool>
void select_top(const Source& source, const Segments& segments, const int64_t* counts, const Slots& slots,
                const Pool& pool) {
  Selector<Source, Pool>(source, segments, counts, slots, pool).run();
}

}  // namespace dgs::cpu
