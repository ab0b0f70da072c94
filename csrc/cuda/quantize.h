// SPDX-License-Identifier: Apache-2.0
// The host's part of quantize_.
#pragma once

#include "cuda/plan.h"
#include "cuda/quantize_kernels.cuh"

namespace dgs::cuda {

template <class Launcher>
void quantize(Launcher& launcher, float* values /* [n] */, int64_t n, Codec codec) {
  launch(launcher, quantize_values, (n + kValuesPerBlock - 1) / kValuesPerBlock, values, n, codec);
}

}  // namespace dgs::cuda
