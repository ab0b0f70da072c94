// SPDX-License-Identifier: Apache-2.0
// The exact k of large segments without candidates: the k-th magnitude digit by digit from histograms, then
// one count and one write. Where an estimate failed, where ties are many, and for large densities. Free of
// torch.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "cpu/choose.h"
#include "cpu/chunks.h"
#include "cpu/loops.h"

namespace dgs::cpu {

struct Digit {
  int shift;
  int bits;
};
constexpr Digit kDigits[] = {{20, 11}, {10, 10}, {0, 10}};  // the 31 bits of a magnitude
constexpr int64_t kBins = 1 << 11;

// One segment whose k-th magnitude is sought, or known.
struct Sought {
  Sought(int64_t s, const Operand& values_of, int64_t k)
      : segment(s), operand(values_of), wanted(k), bins(kBins) {}

  int64_t segment;
  Operand operand;                         // what it is selected from, stored
  int64_t wanted;                          // how many of the entries that share `prefix` are among the k
  uint32_t prefix = 0;                     // the digits found, in place
  bool known = false;                      // prefix is the magnitude
  std::vector<std::atomic<int64_t>> bins;  // [kBins] of the digit at work

  // The digit of the k-th magnitude: the bin in which the count from the top reaches `wanted`.
  void take_digit(const Digit& digit) {
    int64_t bin = (int64_t{1} << digit.bits) - 1;
    for (; bin > 0 && bins[bin] < wanted; --bin) wanted -= bins[bin];
    prefix |= static_cast<uint32_t>(bin) << digit.shift;
    for (auto& b : bins) b = 0;
  }
  // A zero is never sent: then everything above it is kept.
  Cut cut() const { return {prefix, prefix == 0 ? 0 : wanted, false}; }
};

// Segments are added after the sweep has stored them; all are finite.
template <class Pool>
class RadixSelect {
 public:
  RadixSelect(const Loops& loops, const std::vector<Operand>& operands, const Segments& segments,
              const Slots& slots, const Pool& pool)
      : loops_(loops), operands_(operands), segments_(segments), slots_(slots), pool_(pool) {}

  // The k >= 1 largest of segment s.
  void add_largest(int64_t s, int64_t k) {
    first_.push_back(static_cast<int64_t>(ranges_.size()));
    append_ranges(ranges_, s, segments_.size(s));
    owner_.resize(ranges_.size(), sought_.size());
    sought_.emplace_back(s, stored(operands_[s]), k);
  }
  // All entries of magnitude >= threshold >= 1 of segment s, as many as there are slots.
  void add_reaching(int64_t s, uint32_t threshold) {
    add_largest(s, 0);
    sought_.back().prefix = threshold - 1;
    sought_.back().known = true;
  }
  void run() {
    if (sought_.empty()) return;
    first_.push_back(static_cast<int64_t>(ranges_.size()));
    for (const Digit& digit : kDigits) find(digit);
    write();
  }

 private:
  struct Share {  // what one range holds of its segment's k
    int64_t above = 0, ties = 0, skip = 0;
  };

  void find(const Digit& digit) {
    pool_(ranges_.size(), [&](int64_t i) {
      if (!sought_[owner_[i]].known) count_digits(digit, i, sought_[owner_[i]]);
    });
    for (Sought& sought : sought_) {
      if (!sought.known) sought.take_digit(digit);
    }
  }

  template <class Visit>
  void for_each_magnitude(int64_t range, const Visit& visit) const {
    float x[kBlock];
    for_each_block(ranges_[range], [&](int64_t begin, int64_t n) {
      loops_.sample(sought_[owner_[range]].operand, &begin, 1, n, x);
      for (int64_t i = 0; i < n; ++i) visit(magnitude(x[i]), begin + i, x[i]);
    });
  }

  void count_digits(const Digit& digit, int64_t range, Sought& sought) const {
    uint32_t bins[kBins] = {};
    const uint32_t low = (1u << digit.bits) - 1;
    const uint32_t prefix = sought.prefix >> digit.shift >> digit.bits;
    for_each_magnitude(range, [&](uint32_t m, int64_t, float) {
      bins[m >> digit.shift & low] += (m >> digit.shift >> digit.bits) == prefix;
    });
    for (int64_t b = 0; b <= low; ++b) {
      if (bins[b] != 0) sought.bins[b].fetch_add(bins[b], std::memory_order_relaxed);
    }
  }

  void write() {
    std::vector<Share> shares(ranges_.size());
    pool_(ranges_.size(), [&](int64_t i) {
      const uint32_t cut = sought_[owner_[i]].cut().magnitude;
      Share share;
      for_each_magnitude(i, [&](uint32_t m, int64_t, float) {
        share.above += m > cut;
        share.ties += m == cut;
      });
      shares[i] = share;
    });
    for (size_t j = 0; j < sought_.size(); ++j) place(j, shares);
    pool_(ranges_.size(), [&](int64_t i) {
      Cut cut{sought_[owner_[i]].prefix, shares[i].ties, false};
      Writer out(segments_, slots_, ranges_[i].segment, shares[i].skip);
      for_each_magnitude(i, [&](uint32_t m, int64_t at, float value) {
        if (m < cut.magnitude || out.full()) return;
        if (m > cut.magnitude || cut.ties-- > 0) out.write(at, value);
      });
    });
  }

  // Where each range of segment j writes, and how many of its ties: the first ones of the segment.
  void place(size_t j, std::vector<Share>& shares) const {
    int64_t ties = sought_[j].cut().ties, next = 0;
    const int64_t slots = slots_.size(sought_[j].segment);
    for (int64_t i = first_[j]; i < first_[j + 1]; ++i) {
      shares[i].ties = std::min(shares[i].ties, ties);
      ties -= shares[i].ties;
      shares[i].skip = next;
      next = std::min(slots, next + shares[i].above + shares[i].ties);
    }
    slots_.nnz[sought_[j].segment] = next;
  }

  const Loops& loops_;
  const std::vector<Operand>& operands_;
  const Segments& segments_;
  const Slots& slots_;
  const Pool& pool_;
  std::vector<Sought> sought_;
  std::vector<Range> ranges_;
  std::vector<size_t> owner_;   // [ranges]: which of sought_
  std::vector<int64_t> first_;  // [sought + 1]: its ranges
};

}  // namespace dgs::cpu
