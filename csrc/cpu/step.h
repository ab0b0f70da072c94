// SPDX-License-Identifier: Apache-2.0
// The dense step of `asgd`; the others are selections (loops.h). Free of torch.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/chunks.h"
#include "cpu/loops.h"

namespace dgs::cpu {

// q = lr * g for every element, flushed, 0 without a gradient; nnz[s] = the segment's size, or -1 if a q is
// not finite.
template <class Pool>
void step_dense(const Loops& loops, const Gradient* grads, const float* const* weights, float* const* out,
                const float* lr, const float* weight_decay, const Segments& segments, int64_t* nnz,
                const Pool& pool) {
  const auto ranges = all_ranges(segments);
  const bool streamed = segments.numel() >= kWorthStreaming;
  std::vector<char> finite(ranges.size());
  pool(ranges.size(), [&](int64_t i) {
    const auto [s, begin, end] = ranges[i];
    finite[i] = loops.scale(grads[s], weights[s], out[s], begin, end, lr[s], weight_decay[s], streamed);
  });
  for (int64_t s = 0; s < segments.count; ++s) nnz[s] = segments.size(s);
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (!finite[i]) nnz[ranges[i].segment] = -1;
  }
}

}  // namespace dgs::cpu
