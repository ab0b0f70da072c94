// SPDX-License-Identifier: Apache-2.0
// The magnitude of each segment's k-th largest entry, by a radix select among its candidates; a segment whose
// candidates are not enough, or passed their bound, is read again instead, by the same kernels. Each pass
// counts one digit of the entries that match the digits already known (a histogram per block in shared
// memory, added up in global memory), then one block per segment picks the digit.
#pragma once

#include "cuda/candidates.h"

namespace dgs::cuda {

// What a warp goes through of a tile in the later passes: its candidates, or all of its elements.
template <class Operand>
struct TileEntries {
  const Candidate* candidates;  // [end], null: the elements at positions begin .. end
  Operand operand;
  int64_t first;
  int begin, end;
  Piece* piece;  // the tile's; null: there is no tile

  __device__ float value(int p) const { return candidates ? candidates[p].value : operand.value(first + p); }
  __device__ int64_t element(int p) const {
    return first + (candidates ? static_cast<int>(candidates[p].at) : p);
  }
};

// Those of tile `threadIdx.x / 32` of chunk c, if it has so many.
template <class Operand>
__device__ __forceinline__ TileEntries<Operand> entries_of(const Tables<Operand>& tables,
                                                           const Workspace& work, unsigned c) {
  const unsigned warp = threadIdx.x >> 5, tiles = static_cast<unsigned>(tables.tiles());
  const unsigned b = c * tiles + (warp < tiles ? warp : 0);
  const Tile tile = tables.tile(b);
  TileEntries<Operand> entries{nullptr,  tables.operands[tile.s], tile.first, tile.begin,
                               tile.end, &work.pieces[b]};
  if (warp >= tiles || tile.begin >= tile.end) {
    entries.begin = entries.end = 0;
    entries.piece = nullptr;
  } else if (among_candidates(tables.goals[tile.s], work.states[tile.s])) {
    entries.candidates = work.pool + tables.goals[tile.s].pool + entries.piece->begin;
    entries.begin = 0;
    entries.end = static_cast<int>(entries.piece->count);
  }
  return entries;
}

// One block per chunk, one warp per tile.
template <int kPass, class Operand>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    count_digits(Tables<Operand> tables, Workspace work) {
  DGS_SHARED(unsigned, bins, digit_bins(kPass));
  const int64_t s = tables.chunk_segment[blockIdx.x];
  if (kPass > 0 && work.states[s].settled) return;
  const uint32_t known = work.states[s].cut;
  for (int b = static_cast<int>(threadIdx.x); b < digit_bins(kPass); b += kThreads) bins[b] = 0;
  __syncthreads();
  const TileEntries<Operand> entries = entries_of(tables, work, blockIdx.x);
#pragma unroll 4
  for (int p = entries.begin + static_cast<int>(threadIdx.x & 31u); p < entries.end; p += 32)
    count_digit(bins, magnitude(entries.value(p)), known, kPass);
  __syncthreads();
  Count* histogram = work.histograms + s * kMostBins;
  for (int b = static_cast<int>(threadIdx.x); b < digit_bins(kPass); b += kThreads)
    if (bins[b] != 0) atomicAdd(&histogram[b], static_cast<Count>(bins[b]));
}

// One block per segment.
template <int kPass>
static __global__ void __launch_bounds__(kThreads) pick_digit(const Goal* goals /* [S] */, Workspace work) {
  const int64_t s = blockIdx.x;
  State* const state = &work.states[s];
  const uint32_t cut = state->cut;
  const int64_t want = kPass == 0 ? goals[s].count : state->ties;
  if (kPass > 0 && state->settled) return;
  const Digit digit = find_digit(work.histograms + s * kMostBins, digit_bins(kPass), want);
  if (threadIdx.x != 0) return;
  if (kPass == 0 && digit.total <= want) {  // all nonzeros, which may be none
    state->settled = 1;
    return;
  }
  if (digit.bin < 0) {  // nothing is wanted
    state->cut = kNothing;
    state->settled = 1;
    return;
  }
  state->cut = cut | static_cast<uint32_t>(digit.bin) << digit_shift(kPass);
  state->ties = digit.ties;
}

}  // namespace dgs::cuda
