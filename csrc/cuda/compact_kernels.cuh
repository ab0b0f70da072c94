// SPDX-License-Identifier: Apache-2.0
// Writes what the cuts select, in order of index: everything above a segment's threshold, and of the entries
// equal to it the first ones. Counts per chunk, a scan per segment, a write.
#pragma once

#include "cuda/threshold_kernels.cuh"

namespace dgs::cuda {

// Per chunk; after the scan: the same over all chunks of the segment that lie below.
struct ChunkCount {
  Count above, equal;
};

// One block per chunk: how many entries lie above the threshold, how many on it. Both fit 16 bits.
template <class Operand>
__global__ void __launch_bounds__(kThreads)
    count_selected(Tables<Operand> tables, Cut* cuts /* [S] */, ChunkCount* counts /* [chunks] */) {
  DGS_SHARED(unsigned, block_sum, 1);
  if (threadIdx.x == 0) block_sum[0] = 0;
  __syncthreads();
  const Chunk chunk = tables.chunk(blockIdx.x, Over::kElements);
  const Operand operand = tables.operands[chunk.s];
  const uint32_t threshold = cuts[chunk.s].threshold;
  unsigned mine = 0;
  bool bad = false;
  for (int64_t i = chunk.begin + threadIdx.x; i < chunk.end; i += kThreads) {
    const uint32_t m = magnitude(operand.value(i));
    mine += m > threshold ? 1u : m == threshold ? 0x10000u : 0u;
    bad |= m >= 0x7f800000u;
  }
  for (int distance = 16; distance > 0; distance >>= 1) mine += __shfl_down_sync(kFullWarp, mine, distance);
  if ((threadIdx.x & 31u) == 0) atomicAdd(&block_sum[0], mine);
  if (bad) atomicOr(&cuts[chunk.s].bad, 1);
  __syncthreads();
  if (threadIdx.x == 0) counts[blockIdx.x] = {block_sum[0] & 0xffffu, block_sum[0] >> 16};
}

// The slot of an entry with `above` and `equal` such entries below it in its segment.
__device__ __forceinline__ int64_t slot_of(Count above, Count equal, int64_t ties) {
  const int64_t e = static_cast<int64_t>(equal);
  return static_cast<int64_t>(above) + (e < ties ? e : ties);
}

// One block per segment: the counts of its chunks become exclusive prefix sums, their total becomes nnz.
static __global__ void __launch_bounds__(kThreads)
    scan_chunks(const Segment* segments, const Cut* cuts /* [S] */, int64_t segments_size, int64_t chunks,
                ChunkCount* counts /* [chunks] */, int64_t* nnz /* [S] */) {
  const int64_t s = blockIdx.x, first = segments[s].first_chunk;
  const int64_t end = s + 1 < segments_size ? segments[s + 1].first_chunk : chunks;
  ChunkCount below{0, 0};
  for (int64_t c0 = first; c0 < end; c0 += kThreads) {
    const int64_t c = c0 + threadIdx.x;
    const ChunkCount mine = c < end ? counts[c] : ChunkCount{0, 0};
    const Scanned<Count> above = block_scan(mine.above), equal = block_scan(mine.equal);
    if (c < end) counts[c] = {below.above + above.before, below.equal + equal.before};
    below.above += above.total;
    below.equal += equal.total;
  }
  if (threadIdx.x != 0) return;
  const int64_t selected = slot_of(below.above, below.equal, cuts[s].ties);
  nnz[s] = cuts[s].bad ? -1 : selected < segments[s].slots ? selected : segments[s].slots;
}

constexpr int kItems = 4;  // entries per thread and tile; a warp owns 32 * kItems adjacent ones

// What a tile's counts (the same in all lanes of a warp) add up to below this warp, and in the block.
struct TileCount {
  unsigned above_before = 0, equal_before = 0, above = 0, equal = 0;
};

// All threads must call it; it ends with a barrier, so that it can be called again.
__device__ __forceinline__ TileCount count_tile(unsigned above, unsigned equal) {
  DGS_SHARED(unsigned, warp_above, kWarps);
  DGS_SHARED(unsigned, warp_equal, kWarps);
  const unsigned warp = threadIdx.x >> 5;
  if ((threadIdx.x & 31u) == 0) {
    warp_above[warp] = above;
    warp_equal[warp] = equal;
  }
  __syncthreads();
  TileCount count;
#pragma unroll
  for (unsigned w = 0; w < kWarps; ++w) {
    count.above_before += w < warp ? warp_above[w] : 0;
    count.equal_before += w < warp ? warp_equal[w] : 0;
    count.above += warp_above[w];
    count.equal += warp_equal[w];
  }
  __syncthreads();
  return count;
}

// One block per chunk, in tiles of kThreads * kItems entries; item j of a warp is 32 adjacent entries, so
// that reads are coalesced and a ballot gives each entry its rank.
template <class Operand>
__global__ void __launch_bounds__(kThreads)
    write_selected(Tables<Operand> tables, const Cut* cuts /* [S] */, const ChunkCount* below /* [chunks] */,
                   Slots out) {
  const Chunk chunk = tables.chunk(blockIdx.x, Over::kElements);
  if (out.nnz[chunk.s] <= 0) return;
  const Segment segment = tables.segments[chunk.s];
  const Operand operand = tables.operands[chunk.s];
  const Cut cut = cuts[chunk.s];
  const unsigned lane = threadIdx.x & 31u, warp = threadIdx.x >> 5;
  ChunkCount before = below[blockIdx.x];
  for (int64_t tile = chunk.begin; tile < chunk.end; tile += kThreads * kItems) {
    const int64_t first = tile + warp * 32 * kItems + lane;
    float x[kItems];
    unsigned above[kItems], equal[kItems], n_above = 0, n_equal = 0;  // a bit per lane, and their sums
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const bool inside = first + 32 * j < chunk.end;
      x[j] = inside ? operand.value(first + 32 * j) : 0.0f;
      above[j] = __ballot_sync(kFullWarp, inside && magnitude(x[j]) > cut.threshold);
      equal[j] = __ballot_sync(kFullWarp, inside && magnitude(x[j]) == cut.threshold);
      n_above += static_cast<unsigned>(__popc(above[j]));
      n_equal += static_cast<unsigned>(__popc(equal[j]));
    }
    const TileCount count = count_tile(n_above, n_equal);
    Count a = before.above + count.above_before, e = before.equal + count.equal_before;
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const Count my_equal = e + set_below(equal[j]);
      const bool tie = (equal[j] >> lane & 1u) != 0 && static_cast<int64_t>(my_equal) < cut.ties;
      const int64_t slot = slot_of(a + set_below(above[j]), my_equal, cut.ties);
      if (((above[j] >> lane & 1u) != 0 || tie) && slot < segment.slots) {
        out.indices[segment.start + slot] = segment.offset + first + 32 * j;
        out.values[segment.start + slot] = x[j];
      }
      a += static_cast<unsigned>(__popc(above[j]));
      e += static_cast<unsigned>(__popc(equal[j]));
    }
    before.above += count.above;
    before.equal += count.equal;
  }
}

}  // namespace dgs::cuda
