// SPDX-License-Identifier: Apache-2.0
// Tests of the race detector: kernels with a race, which must be reported with the lines of both accesses,
// and next to each the kernel that is right, which must not. MODE=race only.
#include <cstdio>
#include <string>
#include <vector>

#include "simt.h"

namespace {

constexpr unsigned kFull = 0xffffffffu;
int failures = 0;

// --- shared memory

template <bool kRight>
void barrier_between_write_and_read(int* out) {
  SIMT_SHARED(int, shared, 64);
  shared[threadIdx.x] = 1;
  if (kRight) __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] = shared[63 - threadIdx.x];
}

template <bool kRight>
void barrier_at_the_end_of_a_loop(int* out) {
  SIMT_SHARED(int, shared, 64);
  for (int round = 0; round < 3; ++round) {
    shared[threadIdx.x] = round;
    __syncthreads();
    out[blockIdx.x * 64 + threadIdx.x] = shared[63 - threadIdx.x];
    if (kRight) __syncthreads();
  }
}

template <bool kRight>
void order_in_a_warp(int* out) {
  SIMT_SHARED(int, shared, 64);
  shared[threadIdx.x] = 1;
  if (kRight)
    __syncwarp();
  else
    (void)__ballot_sync(kFull, 1);  // lanes meet, but their memory is in no order
  out[blockIdx.x * 64 + threadIdx.x] = shared[threadIdx.x ^ 1];
}

// The halves of a warp are ordered apart.
template <bool kRight>
void order_in_half_a_warp(int* out) {
  SIMT_SHARED(int, shared, 64);
  shared[threadIdx.x] = 1;
  __syncwarp(threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u);
  out[blockIdx.x * 64 + threadIdx.x] = shared[threadIdx.x ^ (kRight ? 1 : 16)];
}

template <bool kRight>
void order_reaches_no_further_than_the_warp(int* out) {
  SIMT_SHARED(int, shared, 64);
  shared[threadIdx.x] = 1;
  __syncwarp();
  out[blockIdx.x * 64 + threadIdx.x] = shared[threadIdx.x ^ (kRight ? 1 : 32)];
}

template <bool kRight>
void atomics_with_a_plain_read(int* out) {
  SIMT_SHARED(int, sum, 1);
  if (threadIdx.x == 0) sum[0] = 0;
  __syncthreads();
  atomicAdd(&sum[0], 1);
  if (kRight) __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] = sum[0];
}

// --- global memory

template <bool kRight>
void blocks_that_write_one_place(int* out) {
  if (threadIdx.x == 0) out[kRight ? blockIdx.x : 0] = 1;
}

// Threads of two blocks write the bytes of one word.
template <bool kRight>
void neighbours_in_a_word(int* out) {
  auto* bytes = reinterpret_cast<unsigned char*>(out);
  if (threadIdx.x < 2) bytes[kRight ? blockIdx.x * 2 + threadIdx.x : threadIdx.x] = 1;
}

template <bool kRight>
void a_vector_over_a_number(int* out) {
  if (threadIdx.x == 0 && blockIdx.x == 0) *reinterpret_cast<int4*>(out) = make_int4(1, 2, 3, 4);
  if (threadIdx.x == 0 && blockIdx.x == 1) out[kRight ? 4 : 3] = 1;
}

// The last block adds up what all blocks have left. Both fences are needed: the first orders a block's
// partial sum before its ticket, the second the last ticket before the reads.
template <bool kBefore, bool kAfter>
void last_block(int* out /* ticket, total, 4 partial sums a block */) {
  SIMT_SHARED(bool, last, 1);
  if (threadIdx.x < 4) out[2 + blockIdx.x * 4 + threadIdx.x] = 1;
  __syncthreads();  // thread 0 publishes what the others of its block have written
  if (threadIdx.x == 0) {
    if (kBefore) __threadfence();
    last[0] = atomicAdd(&out[0], 1) == static_cast<int>(gridDim.x) - 1;
    if (kAfter) __threadfence();
  }
  __syncthreads();
  if (last[0] && threadIdx.x == 33)
    for (unsigned i = 0; i < gridDim.x * 4; ++i) out[1] += out[2 + i];
}

// A fence publishes what came before it, and not what came after.
template <bool kRight>
void write_after_the_fence(int* out /* flag, result, value */) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    if (kRight) out[2] = 1;
    __threadfence();
    if (!kRight) out[2] = 1;
    atomicExch(&out[0], 1);
  } else if (blockIdx.x == 1) {
    while (atomicAdd(&out[0], 0) == 0) __nanosleep(20);
    __threadfence();
    out[1] = out[2];
  }
}

// ---

void check(const char* name, void (*kernel)(int*), bool right) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    simt::config = {.seed = seed, .resident_blocks = 2, .preempt_atomics = true};
    alignas(16) int out[256] = {};
    std::string report;
    try {
      simt::launch(3, 64, kernel, out);
    } catch (const simt::Error& error) {
      report = error.what();
    }
    const bool says_where = report.find("simt: data race: ") == 0 &&
                            report.find("test_races.cpp:") != report.rfind("test_races.cpp:");
    if (right ? report.empty() : says_where) continue;
    ++failures;
    std::printf("FAILED %s, %s, seed %d: \"%s\"\n", name, right ? "right" : "wrong", static_cast<int>(seed),
                report.c_str());
  }
}

#define CHECK(name)                 \
  check(#name, name<false>, false); \
  check(#name, name<true>, true)

// Nothing of one launch races with the next, nor do two blocks' arrays at one address.
void check_that_launches_are_apart() {
  simt::config = {};
  std::vector<int> out(64 * 40);
  for (int launch = 0; launch < 3; ++launch)
    simt::launch(40, 64, barrier_at_the_end_of_a_loop<true>, out.data());
}

}  // namespace

int main() {
  CHECK(barrier_between_write_and_read);
  CHECK(barrier_at_the_end_of_a_loop);
  CHECK(order_in_a_warp);
  CHECK(order_in_half_a_warp);
  CHECK(order_reaches_no_further_than_the_warp);
  CHECK(atomics_with_a_plain_read);
  CHECK(blocks_that_write_one_place);
  CHECK(neighbours_in_a_word);
  CHECK(a_vector_over_a_number);
  CHECK(write_after_the_fence);
  check("last_block without fences", last_block<false, false>, false);
  check("last_block without the first fence", last_block<false, true>, false);
  check("last_block without the second fence", last_block<true, false>, false);
  check("last_block", last_block<true, true>, true);
  check_that_launches_are_apart();
  std::printf("races: %s\n", failures == 0 ? "ok" : "FAILED");
  return failures != 0;
}
