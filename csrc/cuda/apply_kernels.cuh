// SPDX-License-Identifier: Apache-2.0
// What was selected, applied: one thread per entry, chunks of a segment's slots, of which nnz[s] are filled
// (the device knows how many). An index outside its range is dropped: there is no synchronisation in which to
// report it.
#pragma once

#include "cuda/tile.cuh"

namespace dgs::cuda {

// SAMomentum, and with keep = 1 gradient dropping: v -= keep * q.
struct ApplyVelocity {
  float* velocity;  // [n]
  float keep;
  __device__ void apply(int64_t i, float q) const {
    store_one(velocity + i, kept(load_one(velocity + i), keep, q));
  }
};

// DGC: r -= q, and the velocity of what was sent is dropped (momentum factor masking), save in a segment sent
// whole.
struct ApplyDgc {
  float* velocity;  // [n]
  float* residual;  // [n]
  bool mask;
  __device__ void apply(int64_t i, float q) const {
    store_one(residual + i, sub_rn(load_one(residual + i), q));
    if (mask && q != 0.0f) store_one(velocity + i, 0.0f);
  }
};

// One block per chunk of slots.
template <class Operand>
__global__ void __launch_bounds__(kThreads) apply_entries(Tables<Operand> tables, Entries entries) {
  const Chunk chunk = tables.slots(blockIdx.x);
  const Segment segment = tables.segments[chunk.s];
  const Operand operand = tables.operands[chunk.s];
  const int64_t filled = entries.nnz[chunk.s], end = chunk.end < filled ? chunk.end : filled;
  for (int64_t j = chunk.begin + threadIdx.x; j < end; j += kThreads) {
    const int64_t i = entries.indices[segment.start + j] - segment.offset;
    if (i >= 0 && i < segment.size) operand.apply(i, entries.values[segment.start + j]);
  }
}

// Parameters, a mirror, or the server's theta.
struct SparseAdd {
  float* x;  // [n]
};

// The segment that holds flat index i of [0, N). Entries mostly lie in the segment whose slots they fill
// (`guess`); otherwise the last one that begins at or below i, which is not empty.
__device__ __forceinline__ int64_t segment_of(const Segment* segments, int64_t n_segments, int64_t i,
                                              int64_t guess) {
  const int64_t at = i - segments[guess].offset;
  if (at >= 0 && at < segments[guess].size) return guess;
  int64_t low = 0, high = n_segments;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (segments[middle].offset <= i)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// One block per chunk of slots: x += q or x -= q. Indices are distinct.
static __global__ void __launch_bounds__(kThreads)
    add_entries(Tables<SparseAdd> tables, int64_t n_segments, Entries entries, bool subtract) {
  const Chunk chunk = tables.slots(blockIdx.x);
  const int64_t start = tables.segments[chunk.s].start;
  const int64_t numel = tables.segments[n_segments - 1].offset + tables.segments[n_segments - 1].size;
  const int64_t filled = entries.nnz[chunk.s], end = chunk.end < filled ? chunk.end : filled;
  for (int64_t j = chunk.begin + threadIdx.x; j < end; j += kThreads) {
    const int64_t i = entries.indices[start + j];
    if (i < 0 || i >= numel) continue;
    const float q = entries.values[start + j];
    const int64_t s = segment_of(tables.segments, n_segments, i, chunk.s);
    float* const x = tables.operands[s].x + (i - tables.segments[s].offset);
    store_one(x, added(load_one(x), subtract ? -q : q));
  }
}

// x += q or x -= q.
struct DenseAdd {
  float* x;        // [n]
  const float* q;  // [n]
  bool subtract;

  template <int W>
  __device__ Lanes<W> produce(int64_t i, bool&) const {
    Lanes<W> sum = load<W>(x + i);
    const Lanes<W> add = load<W>(q + i);
#pragma unroll
    for (int e = 0; e < W; ++e) sum.v[e] = added(sum.v[e], subtract ? -add.v[e] : add.v[e]);
    store(x + i, sum);
    return sum;
  }
  Alignment alignment() const { return Alignment().add(x, 4).add(q, 4); }
};

// One block per tile.
static __global__ void __launch_bounds__(kThreads, kBlocksPerSm) add_dense(Tables<DenseAdd> tables) {
  const Tile tile = tables.tile(blockIdx.x);
  const DenseAdd operand = tables.operands[tile.s];
  produce_tile(operand, tile, tables.segments[tile.s].vector != 0);
}

// The lowest flat index that is noted; -1, the largest as it is unsigned, until one is.
struct Lowest {
  Count* first;
  __device__ void note(int64_t i) const { atomicMin(first, static_cast<Count>(i)); }
};

[[maybe_unused]] static __global__ void __launch_bounds__(kThreads) nothing_found(Lowest lowest) {
  if (threadIdx.x == 0) *lowest.first = ~Count{0};
}

struct SparseMinuend {
  const float* x;  // [n]
};

// One block per chunk of slots: where x - q is not finite.
[[maybe_unused]] static __global__ void __launch_bounds__(kThreads)
    find_sparse_overflow(Tables<SparseMinuend> tables, int64_t n_segments, Entries entries, Lowest lowest) {
  const Chunk chunk = tables.slots(blockIdx.x);
  const int64_t start = tables.segments[chunk.s].start;
  const int64_t numel = tables.segments[n_segments - 1].offset + tables.segments[n_segments - 1].size;
  const int64_t filled = entries.nnz[chunk.s], end = chunk.end < filled ? chunk.end : filled;
  for (int64_t j = chunk.begin + threadIdx.x; j < end; j += kThreads) {
    const int64_t i = entries.indices[start + j];
    if (i < 0 || i >= numel) continue;
    const int64_t s = segment_of(tables.segments, n_segments, i, chunk.s);
    const float* const x = tables.operands[s].x + (i - tables.segments[s].offset);
    if (!finite(sub_rn(load_one(x), entries.values[start + j]))) lowest.note(i);
  }
}

// x - q, stored nowhere.
struct DenseDifference {
  const float* x;  // [n]
  const float* q;  // [n]
  int64_t offset;  // flat index of the first
  Lowest lowest;

  template <int W>
  __device__ Lanes<W> produce(int64_t i, bool& bad) const {
    Lanes<W> difference = load<W>(x + i);
    const Lanes<W> q_here = load<W>(q + i);
#pragma unroll
    for (int e = 0; e < W; ++e) difference.v[e] = sub_rn(difference.v[e], q_here.v[e]);
    if (!all_finite(difference)) {
      bad = true;
      for (int e = W - 1; e >= 0; --e)
        if (!finite(difference.v[e])) lowest.note(offset + i + e);
    }
    return difference;
  }
  Alignment alignment() const { return Alignment().add(x, 4).add(q, 4); }
};

// One block per tile.
[[maybe_unused]] static __global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    find_dense_overflow(Tables<DenseDifference> tables) {
  const Tile tile = tables.tile(blockIdx.x);
  const DenseDifference operand = tables.operands[tile.s];
  produce_tile(operand, tile, tables.segments[tile.s].vector != 0);
}

}  // namespace dgs::cuda
