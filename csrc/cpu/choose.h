// SPDX-License-Identifier: Apache-2.0
// The k largest among candidates that lie in cache: one histogram, then one of its bins. Free of torch.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/loops.h"

namespace dgs::cpu {

// Entries of one range, in ascending order.
struct Run {
  const float* values = nullptr;
  const uint32_t* at = nullptr;
  int64_t count = 0;
  int64_t begin = 0;  // of the range, in its segment
};

// The k largest: every magnitude above `magnitude`, and the first `ties` of those that equal it.
struct Cut {
  uint32_t magnitude = 0;
  int64_t ties = 0;
  bool all_ties = false;
};

// The Cut of the k largest, k >= 1, of more than k values whose magnitudes are in [low, high].
inline Cut cut_at(const Loops& loops, const Run* runs, int64_t n, uint32_t low, uint32_t high, int64_t k) {
  constexpr int kBinBits = 11;
  const int shift = std::max(0, static_cast<int>(std::bit_width(high - low)) - kBinBits);
  uint32_t bins[1 << kBinBits] = {};
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t i = 0; i < runs[r].count; ++i) ++bins[(magnitude(runs[r].values[i]) - low) >> shift];
  }
  uint32_t bin = (high - low) >> shift;
  for (; k > bins[bin]; --bin) k -= bins[bin];
  // From here on k counts within the bin.
  std::vector<uint32_t> inside(bins[bin] + kSpareLanes);
  const uint32_t first = low + (bin << shift), last = first + ((1u << shift) - 1);
  int64_t found = 0;
  for (int64_t r = 0; r < n; ++r) {
    uint32_t* mine = inside.data() + found;
    const int64_t more = loops.within(runs[r].values, runs[r].count, first, last, mine);
    for (int64_t i = 0; i < more; ++i) mine[i] = magnitude(runs[r].values[mine[i]]);
    found += more;
  }
  const auto smallest = inside.begin() + (k - 1), end = inside.begin() + found;
  std::nth_element(inside.begin(), smallest, end, std::greater<>());
  const uint32_t cut = *smallest;
  const auto above = std::count_if(inside.begin(), smallest, [=](uint32_t m) { return m > cut; });
  const auto ties = std::count(inside.begin(), end, cut);
  return {cut, k - above, k - above == ties};
}

// Writes entries of segment s one behind the other into its slots.
class Writer {
 public:
  Writer(const Segments& segments, const Slots& slots, int64_t s, int64_t skip = 0)
      : offset_(segments.offsets[s]),
        first_(slots.starts[s]),
        next_(first_ + skip),
        end_(slots.starts[s + 1]),
        slots_(slots) {}

  bool full() const { return next_ == end_; }
  int64_t written() const { return next_ - first_; }

  void write(int64_t at, float value) {
    slots_.indices[next_] = offset_ + at;
    slots_.values[next_] = value;
    ++next_;
  }
  // The entries of magnitude >= cut; what lies behind the last one in the segment's slots may be overwritten.
  void write_reaching(const Loops& loops, const Run& run, uint32_t cut) {
    const Room room{offset_ + run.begin, slots_.indices + next_, slots_.values + next_, end_ - next_};
    next_ += loops.keep(run.values, run.at, run.count, cut, room);
  }
  // What `cut` keeps; uses up cut.ties.
  void write_kept(const Loops& loops, const Run& run, Cut& cut) {
    if (cut.all_ties) return write_reaching(loops, run, cut.magnitude);
    for (int64_t i = 0; i < run.count; ++i) {
      const uint32_t m = magnitude(run.values[i]);
      if (m > cut.magnitude || (m == cut.magnitude && cut.ties-- > 0)) {
        write(run.begin + run.at[i], run.values[i]);
      }
    }
  }

 private:
  int64_t offset_, first_, next_, end_;
  const Slots& slots_;
};

}  // namespace dgs::cpu
