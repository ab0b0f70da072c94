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

// Each lane's neighbours in segments of eight lanes, and its equals.
void narrow_collectives(int* out /* [32, 5] */) {
  const int lane = static_cast<int>(threadIdx.x);
  int* const mine = out + lane * 5;
  mine[0] = __shfl_sync(kFull, lane, 5, 8);
  mine[1] = __shfl_up_sync(kFull, lane, 3, 8);
  mine[2] = __shfl_down_sync(kFull, lane, 3, 8);
  mine[3] = __shfl_xor_sync(kFull, lane, 9, 8);
  mine[4] = static_cast<int>(__match_any_sync(kFull, lane % 3));
}

void integers(unsigned* out /* [7] */) {
  out[0] = static_cast<unsigned>(__clz(0x00800000) * 100 + __clz(0));
  out[1] = static_cast<unsigned>(__ffs(0x00800000) * 100 + __ffs(0));
  out[2] = static_cast<unsigned>(__clzll(1ll << 40) * 100 + __ffsll(1ll << 40));
  out[3] = static_cast<unsigned>(__popcll(~0ull) * 100 + __popc(7u));
  out[4] = __brev(0x80000002u);
  out[5] = __float_as_uint(1.0f);
  out[6] = static_cast<unsigned>(__uint_as_float(0x40400000u));
}

void atomics(unsigned* out /* [5] */, unsigned long long* sum) {
  atomicAdd(&out[0], 1u);
  atomicMax(&out[1], threadIdx.x);
  atomicMin(&out[2], threadIdx.x);
  atomicOr(&out[3], 1u << (threadIdx.x % 32));
  if (atomicCAS(&out[4], 0u, threadIdx.x + 1) == 0u) atomicExch(&out[4], 7u);
  atomicAdd(sum, 0x100000000ull);
}

void more_atomics(unsigned* out /* [5] */) {
  atomicSub(&out[0], 1u);
  atomicAnd(&out[1], ~(1u << (threadIdx.x % 32)));
  atomicXor(&out[2], 1u << (threadIdx.x % 32));
  atomicInc(&out[3], 9u);
  atomicDec(&out[4], 9u);
}

// Four values a thread, through dynamic shared memory, back to front.
void vectors(const float* in /* [4 * blockDim.x] */, float* out /* the same */) {
  SIMT_DYNAMIC_SHARED(float4, tile);
  const unsigned last = blockDim.x - 1;
  tile[threadIdx.x] = __ldcs(reinterpret_cast<const float4*>(in) + threadIdx.x);
  __syncthreads();
  const float4 x = tile[last - threadIdx.x];
  __stcs(reinterpret_cast<float4*>(out) + threadIdx.x, make_float4(x.w, x.z, x.y, x.x));
}

// Block 1 waits for block 0.
void wait_for_another(unsigned* flag) {
  if (blockIdx.x == 0)
    atomicExch(flag, 1u);
  else
    while (atomicAdd(flag, 0u) == 0) __nanosleep(20);
}

// The last block to finish adds up what every block has left.
void last_block(unsigned* partial /* [gridDim.x] */, unsigned* ticket, unsigned* total) {
  SIMT_SHARED(bool, last, 1);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = blockIdx.x + 1;
    __threadfence();
    last[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __threadfence();
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

void lane_that_is_elsewhere(int* out) {
  const unsigned mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  out[threadIdx.x] = __shfl_sync(mask, 1, 20);
}
void width_of_three(int* out) { out[threadIdx.x] = __shfl_down_sync(kFull, 1, 1, 3); }
void misaligned_load(int* out) { out[0] = reinterpret_cast<const int4*>(out + 1)[threadIdx.x].x; }
void misaligned_store(int* out) { __stcs(reinterpret_cast<int2*>(out + 1) + threadIdx.x, make_int2(1, 2)); }
void misaligned_atomic(int* out) { atomicAdd(reinterpret_cast<unsigned long long*>(out + 1), 1ull); }
void too_much_shared(int* out) {
  SIMT_SHARED(int, first, 8192);
  SIMT_SHARED(int, second, 8192);
  out[0] = first[0] + second[0];
}
void wait_for_nobody(int* out) {
  while (atomicAdd(out, 0) == 0) __nanosleep(20);
}

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

void test_narrow_collectives() {
  std::vector<int> out(32 * 5);
  simt::launch(1, 32, narrow_collectives, out.data());
  for (int lane = 0; lane < 32; ++lane) {
    const int in = lane % 8, xored = lane ^ 9;
    int equal = 0;
    for (int other = lane % 3; other < 32; other += 3) equal |= static_cast<int>(1u << other);
    const int want[5] = {lane - in + 5, in < 3 ? lane : lane - 3, in > 4 ? lane : lane + 3,
                         xored < lane - in + 8 ? xored : lane, equal};
    for (int i = 0; i < 5; ++i)
      expect(out[static_cast<size_t>(lane * 5 + i)] == want[i], "narrow collective " + std::to_string(i));
  }
}

void test_integers() {
  std::vector<unsigned> out(7);
  simt::launch(1, 1, integers, out.data());
  expect(out == std::vector<unsigned>{832, 2400, 2341, 6403, 0x40000001u, 0x3f800000u, 3},
         "integer intrinsics");
}

void test_vectors() {
  std::vector<float> in(4 * 64), out(4 * 64);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  simt::launch(1, 64, 64 * sizeof(float4), vectors, in.data(), out.data());
  for (size_t i = 0; i < in.size(); ++i) expect(out[i] == in[in.size() - 1 - i], "vectors");
}

void test_waiting() {
  const simt::Config before = simt::config;
  simt::config.resident_blocks = 2;
  unsigned flag = 0;
  simt::launch(2, 32, wait_for_another, &flag);
  expect(flag == 1, "a block that waits for another");
  simt::config = before;
}

void test_atomics() {
  std::vector<unsigned> out{0, 0, 1000, 0, 0};
  unsigned long long sum = 0;
  simt::launch(3, 64, atomics, out.data(), &sum);
  expect(out == std::vector<unsigned>{192, 63, 0, kFull, 7}, "32-bit atomics");
  expect(sum == 192ull << 32, "64-bit atomics");
  std::vector<unsigned> more{1000, kFull, 0, 0, 0};
  simt::launch(1, 33, more_atomics, more.data());
  expect(more == std::vector<unsigned>{967, 0, kFull - 1, 3, 7}, "more 32-bit atomics");
}

void test_last_block() {
  std::vector<unsigned> partial(5);
  unsigned ticket = 0, total = 0;
  simt::launch(5, 32, last_block, partial.data(), &ticket, &total);
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
      {lane_that_is_elsewhere, 32, "shuffle: reads lane 20, which does not take part"},
      {width_of_three, 32, "the width is not a power of two"},
      {misaligned_load, 1, "not at a multiple of 16 bytes [block 0, thread 0]"},
      {misaligned_store, 2, "not at a multiple of 8 bytes [block 0, thread 0]"},
      {misaligned_atomic, 1, "not at a multiple of 8 bytes [block 0, thread 0]"},
      {too_much_shared, 1, "a block has more than 48 KiB"},
      {wait_for_nobody, 2, "every thread only waits for another"},
  };
  for (const Misuse& misuse : all) {
    alignas(16) int out[64] = {};
    std::string message;
    try {
      simt::launch(1, misuse.threads, misuse.kernel, out);
    } catch (const simt::Error& error) {
      message = error.what();
    }
    expect(message.find(misuse.message) != std::string::npos,
           std::string(misuse.message) + ", not: " + message);
    expect(message.empty() || message.find("test_emulator.cpp:") != std::string::npos ||
               misuse.kernel == wait_for_nobody,
           "the place of: " + message);
    test_collectives();  // launches still work after a failed one
  }
}

}  // namespace

int main() {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    simt::config = {
        .seed = seed, .resident_blocks = static_cast<unsigned>(1 + seed % 3), .preempt_atomics = true};
    test_collectives();
    test_narrow_collectives();
    test_integers();
    test_vectors();
    test_waiting();
    test_atomics();
    test_last_block();
  }
  simt::config = {};
  expect(schedules_that_reverse_wrongly<true>() == 0, "__syncwarp orders");
  if (!simt::kRaces) expect(schedules_that_reverse_wrongly<false>() > 0, "schedules differ");
  test_misuse();
  std::printf("emulator: %s\n", failures == 0 ? "ok" : "FAILED");
  return failures != 0;
}
