// SPDX-License-Identifier: Apache-2.0
// Tests of the emulator itself: its collectives and atomics against their definitions, and misuse that it
// must report.
#include <cstdio>
#include <string>
#include <vector>

#include "simt.h"

namespace {

constexpr unsigned kFull = 0xffffffffu;
int failures = 0;

void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED %s (seed %llu)\n", what.c_str(), static_cast<unsigned long long>(simt::config.seed));
}

// Each thread's lane, seen through every shuffle and vote.
void collectives(int* out /* [32, 9] */) {
  const int lane = static_cast<int>(threadIdx.x);
  int* const mine = out + lane * 9;
  mine[0] = __shfl_sync(kFull, lane, 5);
  mine[1] = __shfl_up_sync(kFull, lane, 3);
  mine[2] = __shfl_down_sync(kFull, lane, 3);
  mine[3] = __shfl_xor_sync(kFull, lane, 7);
  mine[4] = __popc(__ballot_sync(kFull, lane % 3 == 0));
  mine[5] = __any_sync(kFull, lane == 31);
  mine[6] = __all_sync(kFull, lane < 31);
  mine[7] = __syncthreads_count(lane % 2) * 10 + __syncthreads_and(lane >= 0);
  mine[8] = __syncthreads_or(lane == 4);
}

void atomics(unsigned* out /* [5] */, unsigned long long* sum) {
  atomicAdd(&out[0], 1u);
  atomicMax(&out[1], threadIdx.x);
  atomicMin(&out[2], threadIdx.x);
  atomicOr(&out[3], 1u << (threadIdx.x % 32));
  if (atomicCAS(&out[4], 0u, threadIdx.x + 1) == 0u) atomicExch(&out[4], 7u);
  atomicAdd(sum, 0x100000000ull);
}

// The last block to finish adds up what every block has left.
template <bool kFence>
void last_block(unsigned* partial /* [gridDim.x] */, unsigned* ticket, unsigned* total) {
  SIMT_SHARED(bool, last, 1);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = blockIdx.x + 1;
    if (kFence) __threadfence();
    last[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last[0] && threadIdx.x == 0)
    for (unsigned b = 0; b < gridDim.x; ++b) *total += partial[b];
}

template <bool kOrdered>
void reverse_warp(int* out /* [32] */) {
  SIMT_SHARED(int, shared, 32);
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kOrdered) __syncwarp();
  out[threadIdx.x] = shared[31 - threadIdx.x];
}

void divergent_barrier(int* out) {
  if (threadIdx.x < 16) {
    __syncthreads();
    out[threadIdx.x] = 1;
  } else {
    __syncthreads();
  }
}
void exit_before_barrier(int* out) {
  if (threadIdx.x >= 48) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}
void missing_lanes(int* out) {
  if (threadIdx.x < 8)
    out[threadIdx.x] = static_cast<int>(__ballot_sync(kFull, 1));
  else
    __syncthreads();
}
void wrong_mask(int* out) {
  if (threadIdx.x == 9) out[0] = __any_sync(0xffu, 1);
}
void lanes_beyond(int* out) { out[threadIdx.x] = __shfl_sync(kFull, 1, 0); }  // in a block of 16

bool reversed(const std::vector<int>& x) {
  for (int i = 0; i < 32; ++i)
    if (x[static_cast<size_t>(i)] != 31 - i) return false;
  return true;
}

void test_collectives() {
  std::vector<int> out(32 * 9);
  simt::launch(1, 32, collectives, out.data());
  for (int lane = 0; lane < 32; ++lane) {
    const int want[9] = {5, lane < 3 ? lane : lane - 3, lane > 28 ? lane : lane + 3, lane ^ 7, 11, 1, 0, 161,
                         1};
    for (int i = 0; i < 9; ++i)
      expect(out[static_cast<size_t>(lane * 9 + i)] == want[i], "collective " + std::to_string(i));
  }
}

void test_atomics() {
  std::vector<unsigned> out{0, 0, 1000, 0, 0};
  unsigned long long sum = 0;
  simt::launch(3, 64, atomics, out.data(), &sum);
  expect(out == std::vector<unsigned>{192, 63, 0, kFull, 7}, "32-bit atomics");
  expect(sum == 192ull << 32, "64-bit atomics");
}

template <bool kFence>
void test_last_block() {
  std::vector<unsigned> partial(5);
  unsigned ticket = 0, total = 0;
  simt::launch(5, 32, last_block<kFence>, partial.data(), &ticket, &total);
  expect(total == 15, "last block");
}

template <bool kOrdered>
int schedules_that_reverse_wrongly() {
  int wrong = 0;
  for (simt::config.seed = 1; simt::config.seed <= 20; ++simt::config.seed) {
    std::vector<int> out(32);
    simt::launch(1, 32, reverse_warp<kOrdered>, out.data());
    wrong += !reversed(out);
  }
  simt::config = {};
  return wrong;
}

void test_misuse() {
  struct Misuse {
    void (*kernel)(int*);
    unsigned threads;
    const char* message;
  };
  const Misuse all[] = {
      {divergent_barrier, 64, "__syncthreads reached at different places"},
      {exit_before_barrier, 64, "some threads of the block have exited"},
      {missing_lanes, 64, "deadlock, no thread can run"},
      {wrong_mask, 32, "not in its own mask"},
      {lanes_beyond, 16, "names a lane beyond the block"},
  };
  for (const Misuse& misuse : all) {
    std::vector<int> out(64);
    std::string message;
    try {
      simt::launch(1, misuse.threads, misuse.kernel, out.data());
    } catch (const simt::Error& error) {
      message = error.what();
    }
    expect(message.find(misuse.message) != std::string::npos,
           std::string(misuse.message) + ", not: " + message);
    test_collectives();  // launches still work after a failed one
  }
}

// A planted bug that TSan, and for the second one a random schedule, must report.
int planted(const std::string& bug) {
  if (bug == "no_fence") test_last_block<false>();
  if (bug == "no_syncwarp") expect(schedules_that_reverse_wrongly<false>() == 0, "a warp's order");
  return failures != 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) return planted(argv[1]);
  for (uint64_t seed = 0; seed < 6; ++seed) {
    simt::config = {
        .seed = seed, .resident_blocks = static_cast<unsigned>(1 + seed % 3), .preempt_atomics = true};
    test_collectives();
    test_atomics();
    test_last_block<true>();
  }
  simt::config = {};
  expect(schedules_that_reverse_wrongly<true>() == 0, "__syncwarp orders");
  test_misuse();
  std::printf("emulator: %s\n", failures == 0 ? "ok" : "FAILED");
  return failures != 0;
}
