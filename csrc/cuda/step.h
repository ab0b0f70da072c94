// SPDX-License-Identifier: Apache-2.0
// The host's part of the steps. Those of the sparse methods are select_top over a VelocityStep or a DgcStep.
#pragma once

#include "cuda/select.h"
#include "cuda/step_kernels.cuh"

namespace dgs::cuda {

template <class Launcher>
void step_dense(Launcher& launcher, const Segments& segments, const std::vector<DenseStep>& operands,
                int64_t* nnz /* [S] */) {
  const Plan plan = plan_tiles(segments, nullptr, operands, 1);
  if (plan.size() == 0) return;
  const Tables<DenseStep> tables = upload_tables(launcher, plan, operands);
  long long* const flags = reinterpret_cast<long long*>(nnz);  // atomicMin has no overload for long
  launch(launcher, assume_finite, (plan.size() + kThreads - 1) / kThreads, tables.segments, plan.size(),
         flags);
  launch(launcher, step_dense_tiles, plan.tiles(), tables, flags);
}

}  // namespace dgs::cuda
