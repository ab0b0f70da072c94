// SPDX-License-Identifier: Apache-2.0
// The host's part of applying a selection, or a dense update.
#pragma once

#include "cuda/apply_kernels.cuh"

namespace dgs::cuda {

// Operand: ApplyVelocity or ApplyDgc.
template <class Operand, class Launcher>
void apply_selection(Launcher& launcher, const Segments& segments, const std::vector<Operand>& operands,
                     const Entries& entries, int64_t chunk_length = kChunk) {
  const Plan plan = plan_slots(segments, entries.starts, chunk_length);
  if (plan.chunks() == 0) return;
  launch(launcher, apply_entries<Operand>, plan.chunks(), upload_tables(launcher, plan, operands), entries);
}

template <class Launcher>
void sparse_add(Launcher& launcher, const Segments& segments, const std::vector<SparseAdd>& operands,
                const Entries& entries, bool subtract, int64_t chunk_length = kChunk) {
  const Plan plan = plan_slots(segments, entries.starts, chunk_length);
  if (plan.chunks() == 0) return;
  const Tables<SparseAdd> tables = upload_tables(launcher, plan, operands);
  launch(launcher, add_entries, plan.chunks(), tables, plan.size(), entries, subtract);
}

template <class Launcher>
void dense_add(Launcher& launcher, const Segments& segments, const std::vector<DenseAdd>& operands) {
  const Plan plan = plan_tiles(segments, nullptr, operands, 1);
  if (plan.chunks() == 0) return;
  launch(launcher, add_dense, plan.tiles(), upload_tables(launcher, plan, operands));
}

// first: [1], the lowest flat index at which x - q is not finite, or -1.
template <class Launcher>
void sparse_overflow(Launcher& launcher, const Segments& segments, const std::vector<SparseMinuend>& operands,
                     const Entries& entries, Lowest first, int64_t chunk_length = kChunk) {
  launch(launcher, nothing_found, 1, first);
  const Plan plan = plan_slots(segments, entries.starts, chunk_length);
  if (plan.chunks() == 0) return;
  const Tables<SparseMinuend> tables = upload_tables(launcher, plan, operands);
  launch(launcher, find_sparse_overflow, plan.chunks(), tables, plan.size(), entries, first);
}

template <class Launcher>
void dense_overflow(Launcher& launcher, const Segments& segments,
                    const std::vector<DenseDifference>& operands, Lowest first) {
  launch(launcher, nothing_found, 1, first);
  const Plan plan = plan_tiles(segments, nullptr, operands, 1);
  if (plan.chunks() == 0) return;
  launch(launcher, find_dense_overflow, plan.tiles(), upload_tables(launcher, plan, operands));
}

}  // namespace dgs::cuda
