// SPDX-License-Identifier: Apache-2.0
// Blocks, barriers, warps and the order in which threads run, all on the host's stack and one OS thread.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "place.h"
#include "shared.h"
#include "warp.h"

namespace simt {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline std::string failure;  // what ended the launch; empty while all is well

// Threads keep their stacks from launch to launch.
class ThreadPool {
 public:
  Thread* take() {
    if (idle_.empty()) {
      all_.push_back(std::make_unique<Thread>());
      prepare(*all_.back(), thread_main);
      return all_.back().get();
    }
    Thread* t = idle_.back();
    idle_.pop_back();
    return t;
  }
  // `abandoned`: it stopped in the middle of a kernel.
  void give(Thread* t, bool abandoned) {
    if (abandoned) prepare(*t, thread_main);
    idle_.push_back(t);
  }

 private:
  std::vector<std::unique_ptr<Thread>> all_;
  std::vector<Thread*> idle_;
};
inline ThreadPool pool;

constexpr uint64_t kMostIdle = 1 << 20;

class Grid {
 public:
  Grid(dim3 grid, dim3 block, size_t shared) : grid_(grid), block_(block), shared_(shared) {}
  ~Grid() {
    for (auto& block : live_) free_block(*block);
  }

  void run() {
    const uint64_t blocks = uint64_t{grid_.x} * grid_.y * grid_.z;
    std::vector<uint64_t> order(blocks);
    races.start(blocks, block_.x * block_.y * block_.z);
    std::iota(order.begin(), order.end(), 0);
    if (config.seed != 0)
      for (uint64_t i = blocks; i > 1; --i) std::swap(order[i - 1], order[random_bits() % i]);
    for (uint64_t next = 0; failure.empty() && (next < blocks || !live_.empty());) {
      while (next < blocks && live_.size() < std::max(1u, config.resident_blocks)) start_block(order[next++]);
      const bool progress = run_until_a_block_ends();
      if (!progress && failure.empty()) describe_deadlock();
    }
    if (!failure.empty()) throw Error("simt: " + failure);
  }

 private:
  void start_block(uint64_t index) {
    live_.push_back(std::make_unique<Block>());
    Block& block = *live_.back();
    block.dynamic_bytes = shared_;
    const unsigned threads = block_.x * block_.y * block_.z;
    const unsigned warps = (threads + kWarp - 1) / kWarp;
    for (unsigned i = 0; i < threads; ++i) block.threads.push_back(pool.take());
    const uint64_t held = config.hold_back ? random_bits() % warps : ~uint64_t{0};
    for (unsigned i = 0; i < threads; ++i) assign(*block.threads[i], block, index, i, i / kWarp == held);
    ready_.insert(ready_.end(), block.threads.begin(), block.threads.end());
  }

  SIMT_UNSEEN void assign(Thread& t, Block& block, uint64_t index, unsigned linear, bool held_back) {
    const unsigned x = static_cast<unsigned>(index % grid_.x),
                   y = static_cast<unsigned>(index / grid_.x % grid_.y);
    t.block_index = {x, y, static_cast<unsigned>(index / grid_.x / grid_.y)};
    t.thread = {linear % block_.x, linear / block_.x % block_.y, linear / (block_.x * block_.y)};
    t.block_shape = block_;
    t.grid_shape = grid_;
    t.block = &block;
    t.linear = linear;
    t.block_linear = index;
    t.state = State::kReady;
    t.held_back = held_back;
    t.clock = {};
    t.idle = false;
    t.complaint = nullptr;
  }

  Thread* next_ready() {
    if (config.seed != 0) {
      const size_t n = ready_.size(), first = random_bits() % n;
      size_t chosen = first;
      for (size_t i = 0; i < n && ready_[chosen]->held_back; ++i) chosen = (first + i) % n;
      std::swap(ready_.front(), ready_[chosen]);
    }
    Thread* t = ready_.front();
    ready_.pop_front();
    return t;
  }

  // False: nobody could run.
  bool run_until_a_block_ends() {
    while (!ready_.empty() && failure.empty()) {
      Thread* t = next_ready();
      resume(*t);
      after(*t);
      if (t->block->done == t->block->threads.size()) {
        retire(t->block);
        return true;
      }
    }
    return false;
  }

  SIMT_UNSEEN static void resume(Thread& t) {
    current = &t;
    switch_fiber(host, t);
    current = nullptr;
  }

  // What thread t stopped for.
  void after(Thread& t) {
    Block& block = *t.block;
    if (t.complaint != nullptr) {
      failure = races.found() ? describe_race() : at(t.file, t.line) + ": " + t.complaint + position(t);
      return;
    }
    idle_ = t.idle ? idle_ + 1 : 0;
    if (idle_ > kMostIdle) {
      failure = "every thread only waits for another (__nanosleep in a loop)" + position(t);
      return;
    }
    t.idle = false;
    switch (t.state) {
      case State::kReady:
        ready_.push_back(&t);
        break;
      case State::kAtBarrier:
        ++block.waiting;
        try_barrier(block);
        break;
      case State::kAtWarp:
        try_warp(block, t.linear / kWarp, t);
        break;
      case State::kDone:
        ++block.done;
        try_barrier(block);
        try_waiting_warp(block, t.linear / kWarp, t.linear % kWarp);
        break;
    }
  }

  SIMT_UNSEEN void go_on(Thread& t, uint64_t result) {
    t.result = result;
    t.state = State::kReady;
    ready_.push_back(&t);
  }

  void try_barrier(Block& block) {
    if (block.waiting == 0 || block.waiting + block.done < block.threads.size()) return;
    const Thread* first = nullptr;
    int count = 0;
    for (const Thread* t : block.threads) {
      if (t->state != State::kAtBarrier) continue;
      if (first == nullptr) first = t;
      if (t->place.line() != first->place.line() || t->place.column() != first->place.column()) {
        failure = "__syncthreads reached at different places, " + at(first->place) + " and " + at(t->place) +
                  position(*t);
        return;
      }
      count += t->predicate != 0;
    }
    if (block.done > 0) {
      failure =
          at(first->place) + ": __syncthreads: some threads of the block have exited" + position(*first);
      return;
    }
    const bool all = count == static_cast<int>(block.threads.size());
    block.waiting = 0;
    if constexpr (kRaces) races.barrier(block.threads);
    for (Thread* t : block.threads)
      go_on(*t, t->barrier == Barrier::kCount ? count : t->barrier == Barrier::kAnd ? all : count > 0);
  }

  // A lane that exited: does the rest of its warp wait only for it?
  void try_waiting_warp(Block& block, unsigned warp, unsigned lane) {
    for (const Thread* t : Lanes(block, warp, ~0u)) {
      if (t->state == State::kAtWarp && (t->mask >> lane & 1u) != 0) {
        try_warp(block, warp, *t);
        return;
      }
    }
  }

  // All lanes of the mask that have not exited must be at the same collective; then each gets its result.
  void try_warp(Block& block, unsigned warp, const Thread& like) {
    Lanes named(block, warp, like.mask);
    if (named.count != static_cast<unsigned>(__builtin_popcount(like.mask))) {
      failure = at(like.place) + ": warp collective: the mask names a lane beyond the block" + position(like);
      return;
    }
    const Meeting meeting(named, like);
    if (!meeting.complete()) return;
    if (kRaces && like.collective == Collective::kSync) races.warp(named.begin(), named.end());
    for (Thread* t : named) {
      if (t->state == State::kDone) continue;
      if (!meeting.has_source(*t)) {
        failure = at(t->place) + ": shuffle: reads lane " + std::to_string(t->source) +
                  ", which does not take part" + position(*t);
        return;
      }
      go_on(*t, meeting.result(*t));
    }
  }

  void describe_deadlock() {
    failure = "deadlock, no thread can run:";
    unsigned shown = 0;
    for (const Thread* t : live_.front()->threads) {
      if (t->state == State::kDone || ++shown > 6) continue;
      const bool barrier = t->state == State::kAtBarrier;
      failure +=
          " thread " + std::to_string(t->linear) +
          (barrier ? " at the barrier of " + at(t->place)
                   : " at the warp collective of " + at(t->place) + " with mask " + hexadecimal(t->mask)) +
          ";";
    }
  }

  void retire(Block* block) {
    const auto at = std::find_if(live_.begin(), live_.end(), [&](auto& b) { return b.get() == block; });
    free_block(**at);
    live_.erase(at);
  }

  static void free_block(Block& block) {
    for (Thread* t : block.threads) {
      pool.give(t, !failure.empty());
    }
    for (SharedArray *a = block.shared, *next = nullptr; a != nullptr; a = next) {
      next = a->next;
#if defined(__SANITIZE_ADDRESS__)
      __asan_unpoison_memory_region(a->memory, a->bytes);
#endif
      std::free(a->memory);
      std::free(a);
    }
  }

  dim3 grid_, block_;
  size_t shared_;
  uint64_t idle_ = 0;  // how often in a row threads only gave way
  std::deque<Thread*> ready_;
  std::vector<std::unique_ptr<Block>> live_;
};

// Runs `kernel` once per thread of the grid, on the host's stack throughout.
template <class Kernel>
void run_grid(dim3 grid, dim3 block, size_t shared, Kernel& kernel) {
  if (current != nullptr) throw Error("simt: launched from device code");
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool block_fits = threads > 0 && threads <= 1024 && block.z <= 64 && shared <= kMostShared;
  if (!block_fits || grid.x == 0 || grid.x > 0x7fffffffu || grid.y - 1 >= 65535 || grid.z - 1 >= 65535)
    throw Error("simt: bad launch shape");
  failure.clear();
  random_state = config.seed;
  body = [](void* argument) { (*static_cast<Kernel*>(argument))(); };
  body_argument = &kernel;
  Grid(grid, block, shared).run();
}

}  // namespace simt
