// SPDX-License-Identifier: Apache-2.0
// Free of torch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/formulas.h"
#include "cpu/chunks.h"

namespace dgs::cpu {

// values [n] become what their codec can say.
template <class Pool>
void quantize(float* values, int64_t n, Codec codec, const Pool& pool) {
  pool((n + kChunk - 1) / kChunk, [&](int64_t i) {
    const int64_t end = std::min(n, (i + 1) * kChunk);
    for (int64_t j = i * kChunk; j < end; ++j) values[j] = quantized(values[j], codec);
  });
}

}  // namespace dgs::cpu
