// SPDX-License-Identifier: Apache-2.0
// The one pass of a selection over its operands: every element is computed, stored where the op stores, and
// kept as a candidate where it reaches its segment's threshold. One read and one write of each operand.
#pragma once

#include "cuda/candidates.h"
#include "cuda/tile.cuh"

namespace dgs::cuda {

// The candidates in a thread's groups of a tile.
struct Kept {
  uint32_t threshold;
  Lanes<kGroup> x[kItems];
  unsigned rows = 0;  // how many in each row's group, a byte each: a warp's sums, at most kRow, fit as well

  __device__ bool has(int j, int e) const { return magnitude(x[j].v[e]) >= threshold; }
  __device__ void count(int j) {
#pragma unroll
    for (int e = 0; e < kGroup; ++e) rows += (has(j, e) ? 1u : 0u) << 8 * j;
  }
};

__device__ __forceinline__ unsigned sum_of_bytes(unsigned bytes) {
  return (bytes & 255u) + (bytes >> 8 & 255u) + (bytes >> 16 & 255u) + (bytes >> 24);
}

// Writes a warp's candidates to `to`, row by row. below: those in the rows of lower lanes; all: in those of
// the warp.
__device__ __forceinline__ void write_rows(const Kept& kept, unsigned below, unsigned all, Candidate* to) {
  if (kept.rows == 0) return;
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    Candidate* next = to + (below >> 8 * j & 255u);
#pragma unroll
    for (int e = 0; e < kGroup; ++e)
      if (kept.has(j, e)) *next++ = {static_cast<uint32_t>(first_position() + j * kRow + e), kept.x[j].v[e]};
    to += all >> 8 * j & 255u;
  }
}

// Reserves room for the block's candidates with one atomic, and writes them in order; if they would pass the
// bound they are only counted. All threads must call it, once.
__device__ __forceinline__ void keep_candidates(const Kept& kept, const Goal& goal, const Workspace& work,
                                                State* state) {
  DGS_SHARED(unsigned, warp_total, kWarps);
  DGS_SHARED(Count, begin, 1);
  const unsigned warp = threadIdx.x >> 5;
  const unsigned inclusive = warp_scan(kept.rows), all = __shfl_sync(kFullWarp, inclusive, 31);
  if ((threadIdx.x & 31u) == 0) warp_total[warp] = sum_of_bytes(all);
  __syncthreads();
  unsigned below = 0, total = 0;
#pragma unroll
  for (unsigned w = 0; w < kWarps; ++w) {
    below += w < warp ? warp_total[w] : 0;
    total += warp_total[w];
  }
  if (threadIdx.x == 0) {
    begin[0] = total > 0 ? atomicAdd(&state->candidates, static_cast<Count>(total)) : 0;
    work.pieces[blockIdx.x] = {begin[0], total, 0};
  }
  if (total == 0) return;
  __syncthreads();
  if (begin[0] + total > static_cast<Count>(goal.bound)) return;
  write_rows(kept, inclusive - kept.rows, all, work.pool + goal.pool + begin[0] + below);
}

// One block per tile.
template <class Operand>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm) sweep(Tables<Operand> tables, Workspace work) {
  const Tile tile = tables.tile(blockIdx.x);
  if (tile.end <= tile.begin) return;
  const Operand operand = tables.operands[tile.s];
  const bool vector = tables.segments[tile.s].vector != 0;
  State* const state = &work.states[tile.s];
  Kept kept{state->threshold, {}, 0};
  bool bad = false;
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    kept.x[j] = produce_group(operand, tile, vector, first_position() + j * kRow, bad);
    kept.count(j);
  }
  if (bad) atomicOr(&state->bad, 1);
  keep_candidates(kept, tables.goals[tile.s], work, state);
}

}  // namespace dgs::cuda
