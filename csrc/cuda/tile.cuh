// SPDX-License-Identifier: Apache-2.0
// A tile as a block goes through it. Warp w owns 512 adjacent positions, in kItems rows of 128; a thread owns
// a group of four adjacent positions in each row, so that the 128-bit accesses of a warp lie side by side:
//
//   warp 0, row 0: | lane 0 | lane 1 | ... | lane 31 |   row 1: | lane 0 | ...      four positions between
//   bars
#pragma once

#include "cuda/plan.h"

namespace dgs::cuda {

constexpr int kRow = 32 * kGroup;  // positions of a warp in one row

// The first position of this thread; its groups are kRow apart.
__device__ __forceinline__ int first_position() {
  return static_cast<int>(threadIdx.x >> 5) * kRow * kItems + static_cast<int>(threadIdx.x & 31u) * kGroup;
}

// Produces the group at position p, in 128-bit accesses if they are aligned and all four elements exist; 0
// where none does. Operand: template <int W> Lanes<W> produce(int64_t i, bool& bad) const
template <class Operand>
__device__ __forceinline__ Lanes<kGroup> produce_group(const Operand& operand, const Tile& tile, bool vector,
                                                       int p, bool& bad) {
  const int64_t i = tile.first + p;
  if (vector && p >= tile.begin && p + kGroup <= tile.end) return operand.template produce<kGroup>(i, bad);
  Lanes<kGroup> x{};
#pragma unroll
  for (int e = 0; e < kGroup; ++e)
    if (p + e >= tile.begin && p + e < tile.end) x.v[e] = operand.template produce<1>(i + e, bad).v[0];
  return x;
}

// Produces the whole tile for the sake of what is stored.
template <class Operand>
__device__ __forceinline__ bool produce_tile(const Operand& operand, const Tile& tile, bool vector) {
  bool bad = false;
#pragma unroll
  for (int j = 0; j < kItems; ++j) produce_group(operand, tile, vector, first_position() + j * kRow, bad);
  return bad;
}

}  // namespace dgs::cuda
