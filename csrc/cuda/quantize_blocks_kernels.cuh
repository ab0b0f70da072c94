// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/block_codecs.h"
#include "cuda/plan.h"

namespace dgs::cuda {

struct Unread {};  // the tables' operand: the op knows its segments by their slots alone

constexpr int kLaneValues = static_cast<int>(kValueBlock) / 32;

__device__ __forceinline__ uint32_t warp_largest(uint32_t value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance >>= 1) {
    const uint32_t other = __shfl_xor_sync(kFullWarp, value, distance);
    value = value < other ? other : value;
  }
  return value;
}

__device__ __forceinline__ uint32_t warp_sum(uint32_t value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(kFullWarp, value, distance);
  return value;
}

// One block per chunk of slots, one warp per value block in it, and of that every 32nd value for a lane.
static __global__ void __launch_bounds__(kThreads)
    quantize_value_blocks(Tables<Unread> tables, float* values /* [K] */, const int64_t* nnz /* [S] */,
                          BlockCodec codec) {
  const Chunk chunk = tables.slots(blockIdx.x);
  float* const from = values + tables.segments[chunk.s].start;
  const int64_t filled = nnz[chunk.s], end = chunk.end < filled ? chunk.end : filled;
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  for (int64_t begin = chunk.begin + warp * kValueBlock; begin < end; begin += kWarps * kValueBlock) {
    float x[kLaneValues];
    uint32_t largest = 0;
#pragma unroll
    for (int e = 0; e < kLaneValues; ++e) {
      const int64_t i = begin + lane + 32 * e;
      x[e] = i < end ? load_one(from + i) : 0.0f;
      const uint32_t m = codable(x[e]);
      largest = largest < m ? m : largest;
    }
    largest = warp_largest(largest);
    BlockSums mine;
#pragma unroll
    for (int e = 0; e < kLaneValues; ++e) {
      const uint32_t m = codable(x[e]);
      mine.sum += in_units_of(largest, m);
      mine.count += m != 0 ? 1 : 0;
    }
    const BlockSums sums{warp_sum(mine.sum), warp_sum(mine.count)};
    const uint32_t scale = largest == 0 ? 0 : block_scale(codec, largest, sums);
#pragma unroll
    for (int e = 0; e < kLaneValues; ++e) {
      const int64_t i = begin + lane + 32 * e;
      if (i < end) store_one(from + i, quantized(x[e], codec, scale));
    }
  }
}

}  // namespace dgs::cuda
