// SPDX-License-Identifier: Apache-2.0
// What every kernel stands on: one header for two compilers. nvcc sees plain CUDA; g++ sees the emulator of
// tests/simt (its folder on the include path), which executes the same kernels on the CPU. Every block has
// kThreads threads.
#pragma once

#include <cstdint>

#include "common/formulas.h"

#if defined(__CUDACC__)
#define DGS_SHARED(T, name, N) __shared__ T name[N]
#else
#include "simt.h"
#define DGS_SHARED(T, name, N) SIMT_SHARED(T, name, N)
#endif

namespace dgs::cuda {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kBlocksPerSm =
    4;  // aimed at by all that touch whole tensors: 1024 threads, so 64 registers each
constexpr unsigned kFullWarp = 0xffffffffu;

// Totals over a segment: the only 64-bit integer that atomicAdd and the shuffles both know.
using Count = unsigned long long;

// Inclusive prefix sum over the warp.
template <class T>
__device__ __forceinline__ T warp_scan(T value) {
#pragma unroll
  for (unsigned distance = 1; distance < 32; distance <<= 1) {
    const T below = __shfl_up_sync(kFullWarp, value, distance);
    if ((threadIdx.x & 31u) >= distance) value += below;
  }
  return value;
}

template <class T>
struct Scanned {
  T before;  // the sum over the threads below this one
  T total;   // the sum over the block
};

// Exclusive prefix sum over the block. All threads must call it; it ends with a barrier, so that it can be
// called again.
template <class T>
__device__ __forceinline__ Scanned<T> block_scan(T value) {
  DGS_SHARED(T, warp_total, kWarps);
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  const T inclusive = warp_scan(value);
  if (lane == 31) warp_total[warp] = inclusive;
  __syncthreads();
  T before = 0, total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += warp_total[w];
    total += warp_total[w];
  }
  __syncthreads();
  return {static_cast<T>(before + inclusive - value), total};
}

// The number of threads of the warp below this lane whose bit is set.
__device__ __forceinline__ unsigned set_below(unsigned ballot) {
  return static_cast<unsigned>(__popc(ballot & ((1u << (threadIdx.x & 31u)) - 1u)));
}

}  // namespace dgs::cuda
