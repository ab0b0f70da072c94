// SPDX-License-Identifier: Apache-2.0
// The host's part of selection, free of torch: workspace, grids and the order of the launches. A Launcher has
//   launch(kernel, blocks, arguments...)   kThreads threads a block, in stream order
//   allocate(bytes)                        device memory, not initialised, kept until what was launched is
//   done upload(data, bytes)                    a copy of host memory on the device, in stream order
#pragma once

#include "cuda/compact_kernels.cuh"
#include "cuda/estimate_kernels.cuh"
#include "cuda/sweep_kernels.cuh"

namespace dgs::cuda {

// What is selected from: a tensor as it is. An operand has
//   produce<W>(i, bad)  computes elements i .. i + W and stores what the op stores; sets `bad` where one is
//   not finite peek(i)             computes element i value(i)            gives it again, after produce
//   alignment()         host: how its arrays lie
struct Values {
  const float* x;  // [n]

  template <int W>
  __device__ Lanes<W> produce(int64_t i, bool& bad) const {
    const Lanes<W> y = load<W>(x + i);
    bad |= !all_finite(y);
    return y;
  }
  __device__ float peek(int64_t i) const { return value(i); }
  __device__ float value(int64_t i) const { return load_one(x + i); }
  Alignment alignment() const { return Alignment().add(x, 4); }
};

// A difference, never stored: what the server's pull selects from.
struct Difference {
  const float* x;  // [n]
  const float* y;  // [n]

  template <int W>
  __device__ Lanes<W> produce(int64_t i, bool& bad) const {
    const Lanes<W> a = load<W>(x + i), b = load<W>(y + i);
    Lanes<W> d;
#pragma unroll
    for (int e = 0; e < W; ++e) d.v[e] = sub_rn(a.v[e], b.v[e]);
    bad |= !all_finite(d);
    return d;
  }
  __device__ float peek(int64_t i) const { return value(i); }
  __device__ float value(int64_t i) const { return sub_rn(load_one(x + i), load_one(y + i)); }
  Alignment alignment() const { return Alignment().add(x, 4).add(y, 4); }
};

// The counts[s] entries of each segment largest in magnitude of what `operands` produce; or, `sampled`, all
// of at least the magnitude that about so many reach in a sample, as many as there are slots. The number of
// launches is the same for every model, and nothing is read back. Returns the states [S] on the device, for
// tests.
template <class Operand, class Launcher>
const State* select_top(Launcher& launcher, const Segments& segments, const int64_t* counts, bool sampled,
                        const std::vector<Operand>& operands, const Slots& out, int tiles = kTilesPerChunk) {
  Plan plan = plan_tiles(segments, out.starts, operands, tiles);
  if (plan.size() == 0) return nullptr;
  const int64_t pool = set_goals(plan, counts, sampled);
  const Tables<Operand> tables = upload_tables(launcher, plan, operands);
  const Workspace work{allocate<State>(launcher, plan.size()),
                       sampled ? nullptr : allocate<Count>(launcher, plan.size() * kMostBins),
                       allocate<Piece>(launcher, plan.tiles()), allocate<Candidate>(launcher, pool),
                       allocate<ChunkCount>(launcher, plan.chunks())};
  launch(launcher, estimate<Operand>, plan.size(), tables, work, sampled);
  launch(launcher, sweep<Operand>, plan.tiles(), tables, work);
  if (!sampled) {
    launch(launcher, count_digits<0, Operand>, plan.chunks(), tables, work);
    launch(launcher, pick_digit<0>, plan.size(), tables.goals, work);
    launch(launcher, count_digits<1, Operand>, plan.chunks(), tables, work);
    launch(launcher, pick_digit<1>, plan.size(), tables.goals, work);
    launch(launcher, count_digits<2, Operand>, plan.chunks(), tables, work);
    launch(launcher, pick_digit<2>, plan.size(), tables.goals, work);
  }
  launch(launcher, count_selected<Operand>, plan.chunks(), tables, work);
  launch(launcher, scan_chunks, plan.size(), tables.segments, plan.size(), plan.chunks(), work, out.nnz);
  launch(launcher, write_selected<Operand>, plan.chunks(), tables, work, out);
  return work.states;
}

}  // namespace dgs::cuda
