// SPDX-License-Identifier: Apache-2.0
// The race detector, for shared and global memory. In MODE=race the compiler announces every access of device
// code (-fsanitize=thread, without its run-time library); this file remembers the last ones of each word and
// reports two of different threads that touch the same bytes, not both reading, not both atomic, with nothing
// that orders them. What orders, as CUDA's memory model has it: __syncthreads, __syncwarp, and a fence, an
// atomic, an atomic at the same address that follows it, and a fence. A launch orders everything. So a race
// is found even if no schedule has shown its effect; only an access that was crowded out of its word can be
// missed.
#pragma once

#include <cstdint>
#include <vector>

#include "thread.h"

namespace simt {

#if defined(__SANITIZE_THREAD__)
constexpr bool kRaces = true;
#else
constexpr bool kRaces = false;
#endif

enum class Kind : uint8_t { kRead, kWrite, kAtomic };

struct Access {
  uint32_t thread;  // of the grid: block * threads + thread
  uint32_t time;    // of that thread's clock
  const void* code;
  uint8_t bytes;  // a bit for each of the word's
  Kind kind;
};

class Races {
 public:
  static constexpr const char* kComplaint = "data race";

  SIMT_UNSEEN void start(uint64_t blocks, unsigned threads) {
    clocks_.start(blocks, threads);
    ++launch_;
  }
  // A block's barrier: every thread knows what all have done.
  SIMT_UNSEEN void barrier(const std::vector<Thread*>& threads) {
    uint32_t* const times = clocks_.new_times(nullptr);
    const Known* known = nullptr;
    for (Thread* t : threads) {
      times[t->linear] = t->clock.now++;
      known = clocks_.join(known, t->clock.known);
    }
    known = clocks_.with_block(known, threads[0]->block_linear, times);
    for (Thread* t : threads) t->clock.known = known;
  }
  // __syncwarp of the threads begin .. end that have not exited.
  SIMT_UNSEEN void warp(Thread** begin, Thread** end) {
    Clock all;
    for (Thread** t = begin; t != end; ++t) {
      if ((*t)->state == State::kDone) continue;
      Clock& clock = (*t)->clock;
      for (unsigned lane = 0; lane < kWarp; ++lane)
        all.lanes[lane] = std::max(all.lanes[lane], clock.lanes[lane]);
      all.lanes[(*t)->linear % kWarp] = clock.now++;
      all.known = clocks_.join(all.known, clock.known);
    }
    for (Thread** t = begin; t != end; ++t) {
      std::copy_n(all.lanes, kWarp, (*t)->clock.lanes);
      (*t)->clock.known = all.known;
    }
  }
  SIMT_UNSEEN void fence(Thread& t) {
    busy_ = true;
    Clock& clock = t.clock;
    clock.known = clocks_.join(clock.known, clock.pending);
    clock.pending = nullptr;
    const Times* const own = clock.known != nullptr ? clock.known[t.block_linear] : nullptr;
    uint32_t* const times = clocks_.new_times(own);
    const unsigned warp = t.linear / kWarp * kWarp;
    for (unsigned lane = 0; lane < kWarp && warp + lane < clocks_.threads(); ++lane)
      times[warp + lane] = std::max(times[warp + lane], clock.lanes[lane]);
    times[t.linear] = clock.now++;
    clock.fenced = clocks_.with_block(clock.known, t.block_linear, times);
    busy_ = false;
  }
  SIMT_UNSEEN void atomic(Thread& t, const void* address, unsigned bytes, const void* code) {
    access(address, bytes, Kind::kAtomic, code);
    busy_ = true;
    const Known*& published = clocks_.published(address);
    t.clock.pending = clocks_.join(t.clock.pending, published);
    published = clocks_.join(published, t.clock.fenced);
    busy_ = false;
  }

  // One access of the running thread.
  SIMT_UNSEEN_INLINE void access(const void* address, unsigned bytes, Kind kind, const void* code) {
    const auto begin = reinterpret_cast<uintptr_t>(address), end = begin + bytes;
    if (busy_ || private_to_thread(begin)) return;
    record(begin, end, kind, code);
    if (found_) fail(kComplaint, "", 0);
  }
  // Memory that is new to its users.
  SIMT_UNSEEN void forget(const void* memory, size_t bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    busy_ = true;
    for (uintptr_t word = begin / 4; word * 4 < begin + bytes; ++word) cell(word).used = 0;
    busy_ = false;
  }

  bool found() const { return found_; }
  // The two accesses that were found; the next ones can be.
  Access take(Access& later) {
    found_ = false;
    later = later_;
    return earlier_;
  }
  unsigned threads() const { return clocks_.threads(); }

 private:
  static constexpr unsigned kKept = 6;  // accesses that a word remembers
  static constexpr uintptr_t kPageWords = 1024;
  static constexpr uintptr_t kRecent = 1024;  // pages found without a search
  struct Cell {
    uint32_t launch, used;
    Access kept[kKept];
  };
  struct Recent {
    uintptr_t number;
    Cell* page;
  };

  SIMT_UNSEEN_INLINE uint32_t thread_of(const Thread& t) const {
    return static_cast<uint32_t>(t.block_linear * clocks_.threads() + t.linear);
  }
  SIMT_UNSEEN_INLINE static bool private_to_thread(uintptr_t address) {
    if (current == nullptr) return true;  // the host's
    const auto stack = reinterpret_cast<uintptr_t>(current->stack),
               self = reinterpret_cast<uintptr_t>(current);
    return address - stack < current->stack_bytes || address - self < sizeof(Thread) ||
           address == reinterpret_cast<uintptr_t>(&current);
  }

  SIMT_UNSEEN Cell& cell(uintptr_t word) {
    const uintptr_t number = word / kPageWords;
    Recent& recent = recent_[number % kRecent];
    if (recent.number != number) {
      Cell*& page = pages_[number];
      if (page == nullptr) page = static_cast<Cell*>(std::calloc(kPageWords, sizeof(Cell)));
      recent = {number, page};
    }
    Cell& cell = recent.page[word % kPageWords];
    if (cell.launch != launch_) cell.launch = launch_, cell.used = 0;
    return cell;
  }

  // Does what `a` did happen before what the running thread does now?
  SIMT_UNSEEN_INLINE bool ordered(const Access& a) const {
    const Clock& clock = current->clock;
    const uint64_t block = a.thread / clocks_.threads(), thread = a.thread % clocks_.threads();
    const bool same_warp = block == current->block_linear && thread / kWarp == current->linear / kWarp;
    if (same_warp && clock.lanes[thread % kWarp] >= a.time) return true;
    return clock.known != nullptr && clock.known[block] != nullptr && clock.known[block][thread] >= a.time;
  }

  // Whatever races with the earlier access races with the later one as well: the earlier can be forgotten.
  SIMT_UNSEEN_INLINE static bool replaces(const Access& later, const Access& earlier) {
    return (earlier.bytes & ~later.bytes) == 0 && (later.kind == earlier.kind || later.kind == Kind::kWrite);
  }

  SIMT_UNSEEN void record(uintptr_t begin, uintptr_t end, Kind kind, const void* code) {
    busy_ = true;
    Access mine{thread_of(*current), current->clock.now, code, 0, kind};
    for (uintptr_t word = begin / 4; word * 4 < end && !found_; ++word) {
      const uintptr_t first = std::max(begin, word * 4) - word * 4,
                      last = std::min(end, word * 4 + 4) - word * 4;
      mine.bytes = static_cast<uint8_t>((1u << last) - (1u << first));
      record(cell(word), mine);
    }
    busy_ = false;
  }
  // Remembers an access, unless it races with one that is remembered.
  SIMT_UNSEEN void record(Cell& cell, const Access& mine) {
    unsigned kept = 0;
    for (unsigned i = 0; i < cell.used; ++i) {
      const Access& other = cell.kept[i];
      bool before = other.thread == mine.thread;
      const bool both_read = other.kind == Kind::kRead && mine.kind == Kind::kRead;
      const bool both_atomic = other.kind == Kind::kAtomic && mine.kind == Kind::kAtomic;
      if (!before && (other.bytes & mine.bytes) != 0 && !both_read && !both_atomic) {
        before = ordered(other);
        if (!before) {
          found_ = true;
          earlier_ = other;
          later_ = mine;
          return;
        }
      }
      if (!(before && replaces(mine, other))) cell.kept[kept++] = other;
    }
    // Crowded out: one access of those that at least are not the last, in turn.
    cell.used = std::min(kept, kKept - 1);
    if (kept == kKept) cell.kept[crowded_++ % (kKept - 1)] = cell.kept[kKept - 1];
    cell.kept[cell.used++] = mine;
  }

  Clocks clocks_;
  std::unordered_map<uintptr_t, Cell*> pages_;
  Recent recent_[kRecent] = {};
  uint32_t launch_ = 0, crowded_ = 0;
  bool busy_ = false;  // it is the detector that accesses memory
  bool found_ = false;
  Access earlier_{}, later_{};
};
inline Races races;

}  // namespace simt

#if defined(__SANITIZE_THREAD__)
#define SIMT_HOOK(name, bytes, kind)                                                       \
  extern "C" __attribute__((used)) SIMT_UNSEEN inline void __tsan_##name(void* address) {  \
    ::simt::races.access(address, bytes, ::simt::Kind::kind, __builtin_return_address(0)); \
  }
#define SIMT_HOOKS(bytes)              \
  SIMT_HOOK(read##bytes, bytes, kRead) \
  SIMT_HOOK(write##bytes, bytes, kWrite)
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
#undef SIMT_HOOKS
#undef SIMT_HOOK
extern "C" {
__attribute__((used)) SIMT_UNSEEN inline void __tsan_read_range(void* address, unsigned long bytes) {
  simt::races.access(address, static_cast<unsigned>(bytes), simt::Kind::kRead, __builtin_return_address(0));
}
__attribute__((used)) SIMT_UNSEEN inline void __tsan_write_range(void* address, unsigned long bytes) {
  simt::races.access(address, static_cast<unsigned>(bytes), simt::Kind::kWrite, __builtin_return_address(0));
}
__attribute__((used)) SIMT_UNSEEN inline void __tsan_vptr_update(void*, void*) {}
__attribute__((used)) SIMT_UNSEEN inline void __tsan_init() {}
}
#endif
