// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "common/checks.h"
#include "cpu/apply.h"
#include "cpu/capability.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

void quantize_(Tensor values, int64_t codec) {
  const Call call{"quantize_", values.device()};
  auto* x = device_vector<float>(call, "values", values, ScalarType::Float, values.numel(), "[K]");
  quantize(loops(), x, values.numel(), check_codec(call, codec), TorchPool(values.numel()));
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) { m.impl("quantize_", TORCH_BOX(&dgs::cpu::quantize_)); }
