// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/device.cuh"

namespace dgs::cuda {

constexpr int64_t kValuesPerBlock = 4 * kThreads;

// Four values a thread, kThreads apart.
static __global__ void __launch_bounds__(kThreads)
    quantize_values(float* values /* [n] */, int64_t n, Codec codec) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kValuesPerBlock;
  const int64_t end = begin + kValuesPerBlock < n ? begin + kValuesPerBlock : n;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) values[i] = quantized(values[i], codec);
}

}  // namespace dgs::cuda
