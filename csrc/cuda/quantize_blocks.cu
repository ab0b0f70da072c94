// SPDX-License-Identifier: Apache-2.0
// quantize_blocks_ on CUDA: launches on the current stream. Executed in the tests' emulator, not yet on a
// GPU. Counts larger than their slots cannot be seen from the host: slots outside of a segment's are never
// touched.
#include <torch/csrc/stable/library.h>

#include "cuda/quantize_blocks.h"
#include "cuda/send.h"
#include "cuda/stream_launcher.h"

namespace dgs::cuda {
namespace {

void quantize_blocks_(const Tensor& values, const Tensor& offsets, const Tensor& starts, const Tensor& nnz,
                      int64_t codec) {
  const Call call{"quantize_blocks_", values.device()};
  const Segments segments = check_segments(call, offsets);
  auto* x = device_vector<float>(call, "values", values, ScalarType::Float, values.numel(), "[K]");
  const auto* first = check_starts(call, segments, starts, values.numel());
  const auto* filled =
      device_vector<const int64_t>(call, "nnz", nnz, ScalarType::Long, segments.count, "[S]");
  const BlockCodec to = check_block_codec(call, codec);
  StreamLauncher launcher(call.device);
  quantize_blocks(launcher, segments, x, first, filled, to);
}

}  // namespace

void quantize_in_blocks(const Device& device, const Segments& segments, const Slots& slots,
                        BlockCodec codec) {
  StreamLauncher launcher(device);
  quantize_blocks(launcher, segments, slots.values, slots.starts, slots.nnz, codec);
}

}  // namespace dgs::cuda

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) {
  m.impl("quantize_blocks_", TORCH_BOX(&dgs::cuda::quantize_blocks_));
}
