// SPDX-License-Identifier: Apache-2.0
// The host's part of quantize_blocks_.
#pragma once

#include <vector>

#include "cuda/quantize_blocks_kernels.cuh"

namespace dgs::cuda {

// chunk_length: a multiple of kValueBlock.
template <class Launcher>
void quantize_blocks(Launcher& launcher, const Segments& segments, float* values /* [K] */,
                     const int64_t* starts, const int64_t* nnz /* [S] */, BlockCodec codec,
                     int64_t chunk_length = kChunk) {
  const Plan plan = plan_slots(segments, starts, chunk_length);
  if (plan.chunks() == 0) return;
  const std::vector<Unread> operands(static_cast<size_t>(segments.count));
  launch(launcher, quantize_value_blocks, plan.chunks(), upload_tables(launcher, plan, operands), values, nnz,
         codec);
}

}  // namespace dgs::cuda
