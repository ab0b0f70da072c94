// SPDX-License-Identifier: Apache-2.0
// quantize_ on CUDA: launches on the current stream. Emulated in the tests, never run on a GPU yet.
#include <torch/csrc/stable/library.h>

#include "cuda/quantize.h"
#include "cuda/stream_launcher.h"

namespace dgs {
namespace {

void quantize_(const Tensor& values, int64_t codec) {
  const Call call = cuda::device_call("quantize_", "values", values);
  const Codec to = check_codec(call, codec);
  float* data = device_vector<float>(call, "values", values, ScalarType::Float, values.numel(), "[K]");
  cuda::StreamLauncher launcher(call.device);
  cuda::quantize(launcher, data, values.numel(), to);
}

}  // namespace
}  // namespace dgs

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) { m.impl("quantize_", TORCH_BOX(&dgs::quantize_)); }
