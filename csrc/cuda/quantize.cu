// SPDX-License-Identifier: Apache-2.0
// quantize_ on CUDA: launches on the current stream. Executed in the tests' emulator, not yet on a GPU.
#include <torch/csrc/stable/library.h>

#include "cuda/quantize.h"
#include "cuda/send.h"
#include "cuda/stream_launcher.h"

namespace dgs::cuda {
namespace {

void quantize_(const Tensor& values, int64_t codec) {
  const Call call{"quantize_", values.device()};
  auto* x = device_vector<float>(call, "values", values, ScalarType::Float, values.numel(), "[K]");
  const Codec to = check_codec(call, codec);
  StreamLauncher launcher(call.device);
  quantize(launcher, x, values.numel(), to);
}

}  // namespace

void quantize_each(const Device& device, const Segments& segments, const Slots& slots, Codec codec) {
  StreamLauncher launcher(device);
  const int64_t first = slots.starts[0];
  quantize(launcher, slots.values + first, slots.starts[segments.count] - first, codec);
}

}  // namespace dgs::cuda

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) { m.impl("quantize_", TORCH_BOX(&dgs::cuda::quantize_)); }
