// SPDX-License-Identifier: Apache-2.0
// The host's part of selection, free of torch: workspace, grids and the order of the launches. A Launcher has
//   launch(kernel, blocks, arguments...)   kThreads threads a block, in stream order
//   allocate(bytes)                        device memory set to zero, kept until what was launched is done
//   with it upload(data, bytes)                    a copy of host memory on the device, in stream order
#pragma once

#include "cuda/compact_kernels.cuh"
#include "cuda/threshold_kernels.cuh"

namespace dgs::cuda {

// What is selected from: a tensor as it is.
struct Values {
  const float* x;  // [n]
  __device__ float produce(int64_t i, bool&) const { return x[i]; }
  __device__ float value(int64_t i) const { return x[i]; }
};

// A difference, never stored: what the server's pull selects from.
struct Difference {
  const float* x;  // [n]
  const float* y;  // [n]
  __device__ float produce(int64_t i, bool&) const { return value(i); }
  __device__ float value(int64_t i) const { return sub_rn(x[i], y[i]); }
};

// The ordered compaction of what the cuts say; the second half of both selections.
template <class Operand, class Launcher>
void compact(Launcher& launcher, const Plan& plan, const Tables<Operand>& tables, Cut* cuts,
             const Slots& out) {
  ChunkCount* counts = allocate<ChunkCount>(launcher, plan.chunks());
  launch(launcher, count_selected<Operand>, plan.chunks(), tables, cuts, counts);
  launch(launcher, scan_chunks, plan.size(), tables.segments, cuts, plan.size(), plan.chunks(), counts,
         out.nnz);
  launch(launcher, write_selected<Operand>, plan.chunks(), tables, cuts, counts, out);
}

// The counts[s] entries of each segment largest in magnitude of what `operands` produce.
template <class Operand, class Launcher>
void select_exact(Launcher& launcher, const Segments& segments, const int64_t* counts,
                  const std::vector<Operand>& operands, const Slots& out, int64_t chunk_length = kChunk) {
  const Plan plan = make_plan(segments, counts, out.starts, Over::kElements, chunk_length);
  if (plan.size() == 0) return;
  const Tables<Operand> tables = upload_tables(launcher, plan, operands);
  Cut* cuts = allocate<Cut>(launcher, plan.size());
  Count* histograms = allocate<Count>(launcher, plan.size() * kMostBins);
  launch(launcher, count_digits<0, Operand>, plan.chunks(), tables, cuts, histograms);
  launch(launcher, pick_digit<0>, plan.size(), tables.segments, cuts, histograms);
  launch(launcher, count_digits<1, Operand>, plan.chunks(), tables, cuts, histograms);
  launch(launcher, pick_digit<1>, plan.size(), tables.segments, cuts, histograms);
  launch(launcher, count_digits<2, Operand>, plan.chunks(), tables, cuts, histograms);
  launch(launcher, pick_digit<2>, plan.size(), tables.segments, cuts, histograms);
  compact(launcher, plan, tables, cuts, out);
}

// All entries of at least a sampled magnitude, as many as there are slots.
template <class Operand, class Launcher>
void select_sampled(Launcher& launcher, const Segments& segments, const int64_t* counts,
                    const std::vector<Operand>& operands, const Slots& out, int64_t chunk_length = kChunk) {
  const Plan plan = make_plan(segments, counts, out.starts, Over::kElements, chunk_length);
  if (plan.size() == 0) return;
  const Tables<Operand> tables = upload_tables(launcher, plan, operands);
  Cut* cuts = allocate<Cut>(launcher, plan.size());
  Count* histograms = allocate<Count>(launcher, plan.size() * kMostBins);
  launch(launcher, count_digits<0, Operand>, plan.chunks(), tables, cuts, histograms);
  launch(launcher, sample_threshold<Operand>, plan.size(), tables, cuts);
  compact(launcher, plan, tables, cuts, out);
}

template <class Operand, class Launcher>
void select_top(Launcher& launcher, const Segments& segments, const int64_t* counts, bool sampled,
                const std::vector<Operand>& operands, const Slots& out, int64_t chunk_length = kChunk) {
  if (sampled)
    select_sampled(launcher, segments, counts, operands, out, chunk_length);
  else
    select_exact(launcher, segments, counts, operands, out, chunk_length);
}

}  // namespace dgs::cuda
