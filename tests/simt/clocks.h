// SPDX-License-Identifier: Apache-2.0
// What has happened before what, for the race detector (race.h): vector clocks, whose shape follows CUDA's.
// All threads of a block know the same after a barrier, so that knowledge is kept once per barrier, as a
// table [blocks] of tables [threads of a block], and a thread adds only what it knows of its own warp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

// The detector must not see itself, nor the rest of the emulator.
#define SIMT_UNSEEN __attribute__((no_sanitize("thread"), noinline))
#define SIMT_UNSEEN_INLINE __attribute__((no_sanitize("thread"), always_inline)) inline

namespace simt {

constexpr unsigned kWarp = 32;

using Times = uint32_t;      // [threads of a block]
using Known = const Times*;  // [blocks]; null: nothing is known of that block

struct Clock {
  uint32_t now = 1;                // grows with every order that the thread hands on
  const Known* known = nullptr;    // null: nothing but the launch
  uint32_t lanes[kWarp] = {};      // of its own warp, by __syncwarp
  const Known* fenced = nullptr;   // what its last fence made ready to be published by an atomic
  const Known* pending = nullptr;  // what its atomics have read, to be known at its next fence
};

// Owns the tables of a launch.
class Clocks {
 public:
  void start(uint64_t blocks, unsigned threads) {
    blocks_ = blocks;
    threads_ = threads;
    tables_.clear();
    published_.clear();
  }
  unsigned threads() const { return threads_; }

  // `times` of a block's threads, at a barrier that all have reached; they then know `known` besides.
  const Known* with_block(const Known* known, uint64_t block, const Times* times) {
    Known* table = reinterpret_cast<Known*>(allocate(blocks_ * sizeof(Known)));
    if (known != nullptr) std::copy_n(known, blocks_, table);
    table[block] = times;
    return table;
  }
  const Known* join(const Known* a, const Known* b) {
    if (a == b || b == nullptr) return a;
    if (a == nullptr) return b;
    Known* table = reinterpret_cast<Known*>(allocate(blocks_ * sizeof(Known)));
    for (uint64_t block = 0; block < blocks_; ++block) table[block] = later(a[block], b[block]);
    return table;
  }
  Times* new_times(const Times* like) {
    Times* times = reinterpret_cast<Times*>(allocate(threads_ * sizeof(Times)));
    if (like != nullptr) std::copy_n(like, threads_, times);
    return times;
  }
  // What atomics at an address hand on.
  const Known*& published(const void* address) { return published_[address]; }

 private:
  const Times* later(const Times* a, const Times* b) {
    if (a == b || b == nullptr) return a;
    if (a == nullptr) return b;
    Times* times = new_times(a);
    for (unsigned t = 0; t < threads_; ++t) times[t] = std::max(times[t], b[t]);
    return times;
  }
  unsigned char* allocate(size_t bytes) {
    tables_.push_back(std::make_unique<uint64_t[]>((bytes + 7) / 8));
    return reinterpret_cast<unsigned char*>(tables_.back().get());
  }

  uint64_t blocks_ = 0;
  unsigned threads_ = 0;
  std::vector<std::unique_ptr<uint64_t[]>> tables_;
  std::unordered_map<const void*, const Known*> published_;
};

}  // namespace simt
