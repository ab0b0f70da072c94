// SPDX-License-Identifier: Apache-2.0
// Writes what the cuts select, in order of index: everything above a segment's cut, and of the entries equal
// to it the first ones. Counts per chunk, a scan per segment, a write.
#pragma once

#include "cuda/threshold_kernels.cuh"

namespace dgs::cuda {

// A warp's (or block's) entries above the cut in the lower half, equal to it in the upper: a chunk has at
// most 2^15.
__device__ __forceinline__ unsigned classified(uint32_t magnitude, uint32_t cut) {
  return magnitude > cut ? 1u : magnitude == cut ? 0x10000u : 0u;
}

// The sum over a tile, in all lanes of its warp.
template <class Operand>
__device__ __forceinline__ unsigned count_tile(const TileEntries<Operand>& entries, uint32_t cut) {
  unsigned mine = 0;
#pragma unroll 4
  for (int p = entries.begin + static_cast<int>(threadIdx.x & 31u); p < entries.end; p += 32)
    mine += classified(magnitude(entries.value(p)), cut);
#pragma unroll
  for (int distance = 16; distance > 0; distance >>= 1) mine += __shfl_xor_sync(kFullWarp, mine, distance);
  return mine;
}

// The sums over the warps below this one, and over the block, of a number that is the same in all lanes.
__device__ __forceinline__ Scanned<unsigned> scan_warps(unsigned value) {
  DGS_SHARED(unsigned, warp_value, kWarps);
  const unsigned warp = threadIdx.x >> 5;
  if ((threadIdx.x & 31u) == 0) warp_value[warp] = value;
  __syncthreads();
  Scanned<unsigned> sum{0, 0};
#pragma unroll
  for (unsigned w = 0; w < kWarps; ++w) {
    sum.before += w < warp ? warp_value[w] : 0;
    sum.total += warp_value[w];
  }
  return sum;
}

// One block per chunk, one warp per tile.
template <class Operand>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    count_selected(Tables<Operand> tables, Workspace work) {
  const TileEntries<Operand> entries = entries_of(tables, work, blockIdx.x);
  const uint32_t cut = work.states[tables.chunk_segment[blockIdx.x]].cut;
  const unsigned mine = count_tile(entries, cut), total = scan_warps(mine).total;
  if (entries.piece != nullptr && (threadIdx.x & 31u) == 0) entries.piece->selected = mine;
  if (threadIdx.x == 0) work.counts[blockIdx.x] = {total & 0xffffu, total >> 16};
}

// The slot of an entry with `above` and `equal` such entries below it in its segment.
__device__ __forceinline__ int64_t slot_of(Count above, Count equal, int64_t ties) {
  const int64_t e = static_cast<int64_t>(equal);
  return static_cast<int64_t>(above) + (e < ties ? e : ties);
}

// One block per segment: the counts of its chunks become exclusive prefix sums, their total becomes nnz.
static __global__ void __launch_bounds__(kThreads)
    scan_chunks(const Segment* segments /* [S] */, int64_t segments_size, int64_t chunks, Workspace work,
                int64_t* nnz /* [S] */) {
  const int64_t s = blockIdx.x, first = segments[s].first_chunk;
  const int64_t end = s + 1 < segments_size ? segments[s + 1].first_chunk : chunks;
  ChunkCount below{0, 0};
  for (int64_t c0 = first; c0 < end; c0 += kThreads) {
    const int64_t c = c0 + threadIdx.x;
    const ChunkCount mine = c < end ? work.counts[c] : ChunkCount{0, 0};
    const Scanned<Count> above = block_scan(mine.above), equal = block_scan(mine.equal);
    if (c < end) work.counts[c] = {below.above + above.before, below.equal + equal.before};
    below.above += above.total;
    below.equal += equal.total;
  }
  if (threadIdx.x != 0) return;
  const int64_t selected = slot_of(below.above, below.equal, work.states[s].ties);
  nnz[s] = work.states[s].bad ? -1 : selected < segments[s].slots ? selected : segments[s].slots;
}

// Writes the selected ones of a tile; above, equal: such entries below the tile in its segment.
template <class Operand>
__device__ __forceinline__ void write_tile(const TileEntries<Operand>& entries, const State& state,
                                           const Segment& segment, Count above, Count equal,
                                           const Slots& out) {
  const unsigned lane = threadIdx.x & 31u;
  for (int p0 = entries.begin; p0 < entries.end; p0 += 32) {
    const int p = p0 + static_cast<int>(lane);
    const bool inside = p < entries.end;
    const float x = inside ? entries.value(p) : 0.0f;
    const unsigned kind = inside ? classified(magnitude(x), state.cut) : 0;
    const unsigned is_above = __ballot_sync(kFullWarp, kind == 1),
                   is_equal = __ballot_sync(kFullWarp, kind > 1);
    const Count my_equal = equal + set_below(is_equal);
    const bool tie = kind > 1 && static_cast<int64_t>(my_equal) < state.ties;
    const int64_t slot = slot_of(above + set_below(is_above), my_equal, state.ties);
    if ((kind == 1 || tie) && slot < segment.slots) {
      out.indices[segment.start + slot] = segment.offset + entries.element(p);
      out.values[segment.start + slot] = x;
    }
    above += static_cast<unsigned>(__popc(is_above));
    equal += static_cast<unsigned>(__popc(is_equal));
  }
}

// One block per chunk, one warp per tile.
template <class Operand>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    write_selected(Tables<Operand> tables, Workspace work, Slots out) {
  const int64_t s = tables.chunk_segment[blockIdx.x];
  if (out.nnz[s] <= 0) return;
  const TileEntries<Operand> entries = entries_of(tables, work, blockIdx.x);
  const State state = work.states[s];
  const ChunkCount below = work.counts[blockIdx.x];
  const unsigned tiles = scan_warps(entries.piece != nullptr ? entries.piece->selected : 0).before;
  write_tile(entries, state, tables.segments[s], below.above + (tiles & 0xffffu), below.equal + (tiles >> 16),
             out);
}

}  // namespace dgs::cuda
