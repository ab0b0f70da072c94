// SPDX-License-Identifier: Apache-2.0
// Selections rounded to the codecs with a scale per block. Free of torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/block_codecs.h"
#include "cpu/chunks.h"
#include "cpu/loops.h"

namespace dgs::cpu {

// Slots [starts[s], starts[s] + nnz[s]) of each segment s, from the first on in blocks of kValueBlock.
template <class Pool>
void quantize_blocks(const Loops& loops, float* values, int64_t segments, const int64_t* starts,
                     const int64_t* nnz, BlockCodec codec, const Pool& pool) {
  static_assert(kChunk % kValueBlock == 0);
  std::vector<Range> ranges;
  for (int64_t s = 0; s < segments; ++s) append_ranges(ranges, s, std::max<int64_t>(nnz[s], 0));
  pool(static_cast<int64_t>(ranges.size()), [&](int64_t i) {
    const Range& range = ranges[static_cast<size_t>(i)];
    loops.quantize_blocks(values + starts[range.segment] + range.begin, range.end - range.begin, codec);
  });
}

}  // namespace dgs::cpu
