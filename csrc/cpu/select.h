// SPDX-License-Identifier: Apache-2.0
// The k largest of every segment, in one sweep over what they are selected from: what passes an estimated
// threshold is kept as a candidate, and the k are chosen among those. Free of torch.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/arena.h"
#include "cpu/choose.h"
#include "cpu/chunks.h"
#include "cpu/counters.h"
#include "cpu/estimate.h"
#include "cpu/loops.h"
#include "cpu/radix.h"

namespace dgs::cpu {

constexpr int64_t kWorthSampling = 1024;  // smaller segments take all nonzeros as candidates
constexpr int64_t kSparse = 2;            // candidates are worth it where k <= n / kSparse

// What is wanted of each segment.
struct Wanted {
  const int64_t* counts;  // [segments]
  bool sampled;  // all entries that reach sampled_threshold, as many as there are slots; not exactly k
};

template <class Pool>
class Selector {
 public:
  Selector(const Loops& loops, const std::vector<Operand>& operands, const Segments& segments,
           const Wanted& wanted, const Slots& slots, const Pool& pool)
      : loops_(loops),
        operands_(operands),
        segments_(segments),
        wanted_(wanted),
        slots_(slots),
        pool_(pool),
        streamed_(segments.numel() >= kWorthStreaming) {}

  void run() {
    plan();
    pool_(large_.size(), [&](int64_t j) { large_[j].threshold = threshold(large_[j].segment); });
    const auto ranges = static_cast<int64_t>(ranges_.size());
    pool_(ranges + static_cast<int64_t>(small_.size()), [&](int64_t i) {
      if (i >= ranges) return select_small(small_[i - ranges]);
      sweep_range(i);
      // Whoever sweeps a segment's last range chooses, while others sweep on and its candidates are in cache.
      Progress& progress = progress_[owner_[i]];
      if (progress.left.fetch_sub(1, std::memory_order_acq_rel) == 1)
        finish(large_[owner_[i]], progress.found);
    });
    RadixSelect<Pool> again(loops_, operands_, segments_, slots_, pool_);
    int64_t read_again = 0;
    for (const Large& large : large_) {
      if (!large.again) continue;
      read_again += segments_.size(large.segment);
      const int64_t s = large.segment, k = wanted_.counts[s];
      if (wanted_.sampled) {
        again.add_reaching(s, large.threshold);
      } else if (k >= segments_.size(s)) {
        again.add_reaching(s, 1);
      } else {
        again.add_largest(s, k);
      }
    }
    again.run();
    counters.add(segments_.numel(), read_again);
  }

 private:
  // A segment of several ranges.
  struct Large {
    int64_t segment;
    int64_t first = 0, last = 0;  // its ranges
    int64_t room = 0;             // for its candidates
    uint32_t threshold = kNothing;
    bool again = false;  // to be selected by RadixSelect
  };
  struct Progress {
    std::atomic<int64_t> found;  // candidates so far
    std::atomic<int64_t> left;   // ranges
  };
  struct Found {
    int64_t place, count;  // in the arena
    uint32_t largest;
  };

  // With more candidates than this they are given up, so that ties cannot fill the memory.
  int64_t most_candidates(int64_t s) const {
    const int64_t n = segments_.size(s);
    return std::min(n, 4 * wanted_.counts[s] + n / 16 + 64);
  }

  void plan() {
    for (int64_t s = 0; s < segments_.count; ++s) {
      if (segments_.size(s) <= kChunk) {
        small_.push_back(s);
      } else {
        large_.push_back({.segment = s, .room = most_candidates(s)});
      }
    }
    // The largest first: what is left for the end is short, and no thread waits long for another.
    std::stable_sort(large_.begin(), large_.end(), [&](const Large& a, const Large& b) {
      return segments_.size(a.segment) > segments_.size(b.segment);
    });
    progress_ = std::vector<Progress>(large_.size());
    int64_t room = 0;
    for (size_t j = 0; j < large_.size(); ++j) {
      Large& large = large_[j];
      large.first = static_cast<int64_t>(ranges_.size());
      append_ranges(ranges_, large.segment, segments_.size(large.segment));
      large.last = static_cast<int64_t>(ranges_.size());
      progress_[j].left = large.last - large.first;
      owner_.resize(ranges_.size(), j);
      room += large.room;
    }
    found_.resize(ranges_.size());
    arena_ = Arena::of_thread().reserve(room);
  }

  uint32_t threshold(int64_t s) const {
    const int64_t n = segments_.size(s), k = wanted_.counts[s];
    if (n == 0) return kNothing;
    if (wanted_.sampled) return sampled_threshold(loops_, operands_[s], n, k);
    if (k == 0) return kNothing;
    if (n >= kWorthSampling && k <= n / kSparse) return estimated_threshold(loops_, operands_[s], n, k);
    return n <= kChunk ? 1 : kNothing;
  }

  void sweep_range(int64_t i) {
    const Large& large = large_[owner_[i]];
    std::atomic<int64_t>& found = progress_[owner_[i]].found;
    const auto [s, begin, end] = ranges_[i];
    float values[kChunk + kSpareLanes];
    uint32_t at[kChunk + kSpareLanes];
    const bool many = found.load(std::memory_order_relaxed) > large.room;
    const Swept swept =
        loops_.sweep(operands_[s], begin, end, many ? kNothing : large.threshold, streamed_, {values, at});
    found_[i] = {0, swept.count, swept.largest};
    if (found.fetch_add(swept.count, std::memory_order_relaxed) + swept.count > large.room) return;
    const int64_t place = used_.fetch_add(swept.count, std::memory_order_relaxed);
    std::memcpy(arena_.values + place, values, swept.count * sizeof(float));
    std::memcpy(arena_.at + place, at, swept.count * sizeof(uint32_t));
    found_[i].place = place;
  }

  void select_small(int64_t s) const {
    const int64_t n = segments_.size(s);
    float values[kChunk + kSpareLanes];
    uint32_t at[kChunk + kSpareLanes];
    uint32_t reach = threshold(s);
    Swept swept = loops_.sweep(operands_[s], 0, n, reach, false, {values, at});
    if (!wanted_.sampled && reach > 1 && reach < kNothing && swept.count < wanted_.counts[s]) {
      counters.add(0, n);
      reach = 1;
      // What is stored beside what is selected from is not looked at again.
      const uint32_t largest = swept.largest;
      swept = loops_.sweep(stored(operands_[s]), 0, n, reach, false, {values, at});
      swept.largest = std::max(swept.largest, largest);
    }
    const Run run{values, at, swept.count, 0};
    choose(s, &run, 1, reach, swept.largest);
  }

  void finish(Large& large, int64_t count) {
    uint32_t largest = 0;
    std::vector<Run> runs;
    for (int64_t i = large.first; i < large.last; ++i) {
      largest = std::max(largest, found_[i].largest);
      const int64_t place = found_[i].place;
      runs.push_back({arena_.values + place, arena_.at + place, found_[i].count, ranges_[i].begin});
    }
    const int64_t k = wanted_.counts[large.segment];
    const bool enough = wanted_.sampled || k == 0 || count >= k || large.threshold == 1;
    large.again = largest < kInfinity && (count > large.room || !enough);
    if (!large.again) choose(large.segment, runs.data(), runs.size(), large.threshold, largest);
  }

  // Writes what is wanted of segment s, among n runs of all its entries of magnitude >= low.
  void choose(int64_t s, const Run* runs, int64_t n, uint32_t low, uint32_t largest) const {
    slots_.nnz[s] = -1;
    if (largest >= kInfinity) return;
    int64_t total = 0;
    for (int64_t i = 0; i < n; ++i) total += runs[i].count;
    const int64_t k = wanted_.counts[s];
    Cut cut{low, 0, true};
    if (!wanted_.sampled && total > k) cut = cut_at(loops_, runs, n, low, largest, k);
    Writer out(segments_, slots_, s);
    for (int64_t i = 0; i < n && !out.full(); ++i) out.write_kept(loops_, runs[i], cut);
    slots_.nnz[s] = out.written();
  }

  const Loops& loops_;
  const std::vector<Operand>& operands_;  // [segments]
  const Segments& segments_;
  const Wanted wanted_;
  const Slots& slots_;
  const Pool& pool_;
  const bool streamed_;
  std::vector<int64_t> small_;  // segments of one range: one task each
  std::vector<Large> large_;
  std::vector<Progress> progress_;  // [large_]
  std::vector<Range> ranges_;       // of the large segments
  std::vector<Found> found_;        // [ranges_]
  std::vector<size_t> owner_;       // [ranges_]: which of large_
  Candidates arena_ = {};
  std::atomic<int64_t> used_ = 0;  // of the arena
};

// Stores what the operands [segments] store, and selects from each segment.
template <class Pool>
void select_top(const Loops& loops, const std::vector<Operand>& operands, const Segments& segments,
                const Wanted& wanted, const Slots& slots, const Pool& pool) {
  Selector<Pool>(loops, operands, segments, wanted, slots, pool).run();
}

}  // namespace dgs::cpu
