// SPDX-License-Identifier: Apache-2.0
// Blocks, barriers, warps and the order in which threads run. One OS thread; every CUDA thread is a fiber
// that gives up control at barriers, warp collectives, atomics (where asked for) and its end. A thread only
// says what it waits for; the scheduler, on the host's stack, decides who goes on.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <source_location>
#include <vector>

#include "fiber.h"

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 {
  unsigned x, y, z;
};

namespace simt {

struct Config {
  uint64_t seed = 0;  // 0: round robin; else a random runnable thread, and blocks in a random order
  unsigned resident_blocks = 1;  // blocks that are interleaved
  bool preempt_atomics = false;  // with a seed: switch at random before and after atomics
  bool hold_back = false;  // with a seed: one warp of each block runs only when nobody else can, so that the
                           // others get as far ahead of it as barriers let them
};
inline Config config;

enum class State : uint8_t { kReady, kAtBarrier, kAtWarp, kDone };
enum class Collective : uint8_t { kSync, kShuffle, kBallot, kAny, kAll, kMatch };
enum class Barrier : uint8_t { kPlain, kCount, kAnd, kOr };

struct Block;
struct Thread : Fiber {
  uint3 thread, block_index;
  dim3 block_shape, grid_shape;
  Block* block = nullptr;
  unsigned linear = 0;        // of the block
  uint64_t block_linear = 0;  // of the grid
  Clock clock;
  State state = State::kReady;
  bool held_back = false;
  bool idle = false;           // gave way only to wait for another thread
  std::source_location place;  // of the last barrier or warp collective
  // At a barrier
  Barrier barrier = Barrier::kPlain;
  int predicate = 0;
  // At a warp collective
  Collective collective = Collective::kSync;
  uint32_t mask = 0;
  unsigned source = 0;
  uint64_t value = 0;
  // What either gives back
  uint64_t result = 0;
  // Misuse: the launch ends
  const char* complaint = nullptr;
  const char* file = nullptr;
  unsigned line = 0;
};

// A __shared__ array of a block; `key` is its declaration.
struct SharedArray {
  const void* key;
  void* memory;
  size_t bytes;
  SharedArray* next;
};

struct Block {
  std::vector<Thread*> threads;
  unsigned waiting = 0, done = 0;
  SharedArray* shared = nullptr;
  size_t shared_bytes = 0, dynamic_bytes = 0;  // of all arrays so far; what the launch asked for
};

inline Thread* current = nullptr;
inline void (*body)(void*) = nullptr;
inline void* body_argument = nullptr;
inline uint64_t random_state = 1;

// splitmix64
SIMT_UNSEEN inline uint64_t random_bits() {
  uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// What follows is called by device code, on a thread's own stack.
// -------------------------------------------------------------------

SIMT_UNSEEN inline void wait_as(State state) {
  Thread& self = *current;
  self.state = state;
  switch_fiber(self, host);
}

// Ends the launch; the thread is never resumed.
[[noreturn]] SIMT_UNSEEN inline void fail(const char* what, const char* file, unsigned line) {
  current->complaint = what;
  current->file = file;
  current->line = line;
  for (;;) wait_as(State::kDone);
}

SIMT_UNSEEN inline int syncthreads(Barrier barrier, int predicate, const std::source_location& place) {
  Thread& self = *current;
  self.barrier = barrier;
  self.predicate = predicate;
  self.place = place;
  wait_as(State::kAtBarrier);
  return static_cast<int>(self.result);
}

SIMT_UNSEEN inline uint64_t warp_collective(Collective collective, uint32_t mask, uint64_t value,
                                            unsigned source, const std::source_location& place) {
  Thread& self = *current;
  self.place = place;
  if ((mask >> (self.linear % kWarp) & 1u) == 0)
    fail("warp collective: the calling lane is not in its own mask", place.file_name(), place.line());
  self.collective = collective;
  self.mask = mask;
  self.value = value;
  self.source = source;
  wait_as(State::kAtWarp);
  return self.result;
}

inline void maybe_preempt() {
  if (config.preempt_atomics && config.seed != 0 && random_bits() % 4 == 0) wait_as(State::kReady);
}

// Lets the others run: what a thread does that waits for one of them.
SIMT_UNSEEN inline void give_way() {
  current->idle = true;
  wait_as(State::kReady);
}

inline void thread_main() {
  arrived(*current);
  for (;;) {
    body(body_argument);
    wait_as(State::kDone);
  }
}

}  // namespace simt
