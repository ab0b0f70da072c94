// SPDX-License-Identifier: Apache-2.0
#include "cpu/quantize_blocks.h"

#include <torch/csrc/stable/library.h>

#include "common/checks.h"
#include "cpu/capability.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

void quantize_blocks_(Tensor values, Tensor offsets, Tensor starts, Tensor nnz, int64_t codec) {
  const Call call{"quantize_blocks_", values.device()};
  const Segments segments = check_segments(call, offsets);
  auto* x = device_vector<float>(call, "values", values, ScalarType::Float, values.numel(), "[K]");
  const auto* first = check_starts(call, segments, starts, values.numel());
  const auto* filled =
      device_vector<const int64_t>(call, "nnz", nnz, ScalarType::Long, segments.count, "[S]");
  for (int64_t s = 0; s < segments.count; ++s) {
    DGS_CHECK(call, filled[s] >= -1 && filled[s] <= first[s + 1] - first[s], "nnz[", s, "] = ", filled[s],
              ", must be in [-1, ", first[s + 1] - first[s], "], the slots that starts gives segment ", s);
  }
  quantize_blocks(loops(), x, segments.count, first, filled, check_block_codec(call, codec),
                  TorchPool(values.numel()));
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) { m.impl("quantize_blocks_", TORCH_BOX(&dgs::cpu::quantize_blocks_)); }
