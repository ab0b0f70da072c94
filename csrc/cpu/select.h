// SPDX-License-Identifier: Apache-2.0
// The k largest of every segment, in one sweep over what they are selected from: what passes an estimated
// threshold is kept as a candidate, and the k are chosen among those, and taken out if they are to be sent.
// Free of torch.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <vector>

#include "cpu/arena.h"
#include "cpu/choose.h"
#include "cpu/chunks.h"
#include "cpu/counters.h"
#include "cpu/estimate.h"
#include "cpu/loops.h"
#include "cpu/radix.h"
#include "cpu/take.h"

namespace dgs::cpu {

constexpr int64_t kWorthSampling = 1024;  // smaller segments take all nonzeros as candidates
constexpr int64_t kSparse = 2;            // candidates are worth it where k <= n / kSparse
constexpr int64_t kLongStrip = 4;         // ranges that one thread sweeps one behind the other, at most,
constexpr int64_t kStrips = 64;           // and if so many tasks are left
// Up to so many entries that the sweep did not take are taken out by whoever has selected them, more of them
// by all threads.
constexpr int64_t kSmallSelection = 4 * kEntries;

// What is wanted of each segment.
struct Wanted {
  const int64_t* counts;  // [segments]
  bool sampled;  // all entries that reach sampled_threshold, as many as there are slots; not exactly k
  CodecNumber codec = kNotSent;
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
        taker_(loops, operands, segments, slots, wanted.codec),
        pool_(pool),
        streamed_(segments.numel() >= kWorthStreaming) {}

  void run() {
    plan();
    pool_(large_.size(), [&](int64_t j) { large_[j].reach = reach(large_[j].segment); });
    const auto ranges = static_cast<int64_t>(ranges_.size());
    // What is fetched ahead at the end of a strip is another thread's, so that strips are long where many are
    // left.
    const int64_t strip = std::clamp<int64_t>(ranges / kStrips, 1, kLongStrip);
    const int64_t strips = (ranges + strip - 1) / strip;
    pool_(strips + static_cast<int64_t>(small_.size()), [&](int64_t j) {
      if (j >= strips) return select_small(small_[j - strips]);
      for (int64_t i = j * strip; i < std::min((j + 1) * strip, ranges); ++i) {
        sweep_range(i);
        // Whoever sweeps a segment's last range chooses, while others sweep on and its candidates are in
        // cache.
        Progress& progress = progress_[owner_[i]];
        if (progress.left.fetch_sub(1, std::memory_order_acq_rel) == 1) finish(large_[owner_[i]], progress);
      }
    });
    select_again();
    take_rest();
  }

 private:
  // A segment of several ranges.
  struct Large {
    int64_t segment;
    int64_t first = 0, last = 0;  // its ranges
    int64_t room = 0;             // for its candidates
    Reach reach = {};
    bool again = false;    // to be selected by RadixSelect
    bool untaken = false;  // what was selected is still to be taken out
  };
  struct Progress {
    std::atomic<int64_t> found;  // candidates so far
    std::atomic<int64_t> left;   // ranges
    std::once_flag begun;
    Candidates candidates = {};
  };
  struct Found {
    int64_t place, count;  // among the segment's candidates
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
    int64_t most = 0;
    for (size_t j = 0; j < large_.size(); ++j) {
      Large& large = large_[j];
      large.first = static_cast<int64_t>(ranges_.size());
      append_ranges(ranges_, large.segment, segments_.size(large.segment));
      large.last = static_cast<int64_t>(ranges_.size());
      progress_[j].left = large.last - large.first;
      owner_.resize(ranges_.size(), j);
      most = std::max(most, large.room);
    }
    found_.resize(ranges_.size());
    arena_.begin(most);
  }

  Reach reach(int64_t s) const {
    Reach found = estimate(s);
    found.take = taker_.in_sweep(s, found.take);
    return found;
  }

  Reach estimate(int64_t s) const {
    const int64_t n = segments_.size(s), k = wanted_.counts[s];
    if (n == 0 || slots_.size(s) == 0) return {};
    if (wanted_.sampled) {
      const uint32_t all = sampled_threshold(loops_, operands_[s], n, k);
      return {all, all};
    }
    if (k == 0) return {};
    if (n >= kWorthSampling && k <= n / kSparse) return estimated_reach(loops_, operands_[s], n, k);
    return {n <= kChunk ? 1 : kNothing, kNothing};
  }

  void sweep_range(int64_t i) {
    const Large& large = large_[owner_[i]];
    Progress& progress = progress_[owner_[i]];
    const auto [s, begin, end] = ranges_[i];
    float values[kChunk + kSpareLanes];
    uint32_t at[kChunk + kSpareLanes];
    const bool many = progress.found.load(std::memory_order_relaxed) > large.room;
    const Swept swept =
        loops_.sweep(operands_[s], begin, end, many ? Reach{} : large.reach, streamed_, {values, at});
    found_[i] = {0, swept.count, swept.largest};
    std::call_once(progress.begun, [&] { progress.candidates = arena_.take(); });
    const int64_t place = progress.found.fetch_add(swept.count, std::memory_order_relaxed);
    if (place + swept.count > large.room) return;
    found_[i].place = place;
    std::memcpy(progress.candidates.values + place, values, swept.count * sizeof(float));
    std::memcpy(progress.candidates.at + place, at, swept.count * sizeof(uint32_t));
  }

  void select_small(int64_t s) const {
    const int64_t n = segments_.size(s);
    float values[kChunk + kSpareLanes];
    uint32_t at[kChunk + kSpareLanes];
    uint32_t low = estimate(s).low;
    Swept swept = loops_.sweep(operands_[s], 0, n, {low, kNothing}, false, {values, at});
    if (!wanted_.sampled && low > 1 && low < kNothing && swept.count < wanted_.counts[s]) {
      counters.add(0, n);
      low = 1;
      // What is stored beside what is selected from is not looked at again.
      const uint32_t largest = swept.largest;
      swept = loops_.sweep(stored(operands_[s]), 0, n, {low, kNothing}, false, {values, at});
      swept.largest = std::max(swept.largest, largest);
    }
    const Run run{values, at, swept.count, 0};
    choose(s, &run, 1, low, swept.largest);
    if (taker_.at_work()) taker_.take_slots(s, 0, selected(s));
  }

  void finish(Large& large, const Progress& progress) {
    finish(large, progress.candidates, progress.found);
    arena_.give_back(progress.candidates);
  }

  void finish(Large& large, const Candidates& all, int64_t count) {
    uint32_t largest = 0;
    std::vector<Run> runs;
    for (int64_t i = large.first; i < large.last; ++i) {
      largest = std::max(largest, found_[i].largest);
      const int64_t place = found_[i].place;
      runs.push_back({all.values + place, all.at + place, found_[i].count, ranges_[i].begin});
    }
    const int64_t s = large.segment, k = wanted_.counts[s], n = runs.size();
    const bool enough = wanted_.sampled || k == 0 || count >= k || large.reach.low == 1;
    large.again = largest < kInfinity && (count > large.room || !enough);
    if (large.again) return;
    const Cut cut = choose(s, runs.data(), n, large.reach.low, largest);
    if (!taker_.at_work() || slots_.nnz[s] < 0) return;
    if (large.reach.take < kNothing) {
      taker_.settle(s, runs.data(), n, large.reach, cut);
    } else if (selected(s) <= kSmallSelection) {
      taker_.take_slots(s, 0, selected(s));  // where it was selected from may still be in cache
    } else {
      large.untaken = true;
    }
  }

  int64_t selected(int64_t s) const { return std::max<int64_t>(slots_.nnz[s], 0); }

  // Selects from the segments of which the candidates were not enough, or too many.
  void select_again() {
    RadixSelect<Pool> again(loops_, operands_, segments_, slots_, pool_);
    std::vector<int64_t> swept;
    int64_t read_again = 0;
    for (Large& large : large_) {
      if (!large.again) continue;
      const int64_t s = large.segment, k = wanted_.counts[s];
      read_again += segments_.size(s);
      large.untaken = taker_.at_work();
      if (large.reach.take < kNothing) {
        for (int64_t i = large.first; i < large.last; ++i) swept.push_back(i);
      }
      if (wanted_.sampled) {
        again.add_reaching(s, large.reach.low);
      } else if (k >= segments_.size(s)) {
        again.add_reaching(s, 1);
      } else {
        again.add_largest(s, k);
      }
    }
    pool_(swept.size(), [&](int64_t j) {
      const auto [s, begin, end] = ranges_[swept[j]];
      taker_.put_back(s, begin, end, streamed_);
    });
    again.run();
    counters.add(segments_.numel(), read_again);
  }

  void take_rest() const {
    std::vector<Range> rest;
    for (const Large& large : large_) {
      if (large.untaken) append_ranges(rest, large.segment, selected(large.segment), kEntries);
    }
    pool_(rest.size(), [&](int64_t i) { taker_.take_slots(rest[i].segment, rest[i].begin, rest[i].end); });
  }

  // Writes what is wanted of segment s, among n runs of all its entries of magnitude >= low; returns its cut.
  Cut choose(int64_t s, const Run* runs, int64_t n, uint32_t low, uint32_t largest) const {
    slots_.nnz[s] = -1;
    if (largest >= kInfinity) return {};
    int64_t total = 0;
    for (int64_t i = 0; i < n; ++i) total += runs[i].count;
    const int64_t k = wanted_.counts[s];
    Cut cut{low, 0, true};
    if (!wanted_.sampled && total > k) cut = cut_at(loops_, runs, n, low, largest, k);
    Writer out(segments_, slots_, s);
    Cut left = cut;
    for (int64_t i = 0; i < n && !out.full(); ++i) out.write_kept(loops_, runs[i], left);
    slots_.nnz[s] = out.written();
    return cut;
  }

  const Loops& loops_;
  const std::vector<Operand>& operands_;  // [segments]
  const Segments& segments_;
  const Wanted wanted_;
  const Slots& slots_;
  const Taker taker_;
  const Pool& pool_;
  const bool streamed_;
  std::vector<int64_t> small_;  // segments of one range: one task each
  std::vector<Large> large_;
  std::vector<Progress> progress_;  // [large_]
  std::vector<Range> ranges_;       // of the large segments
  std::vector<Found> found_;        // [ranges_]
  std::vector<size_t> owner_;       // [ranges_]: which of large_
  Arena& arena_ = Arena::of_thread();
};

// Stores what the operands [segments] store, and selects from each segment.
template <class Pool>
void select_top(const Loops& loops, const std::vector<Operand>& operands, const Segments& segments,
                const Wanted& wanted, const Slots& slots, const Pool& pool) {
  Selector<Pool>(loops, operands, segments, wanted, slots, pool).run();
}

}  // namespace dgs::cpu
