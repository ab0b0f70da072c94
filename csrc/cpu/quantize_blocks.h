// SPDX-License-Identifier: Apache-2.0
// Selections rounded to the codecs with a scale per block. Free of torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/block_codecs.h"
#include "cpu/chunks.h"

namespace dgs::cpu {

// values [n], n <= kValueBlock, become what one block of the codec can say.
inline void quantize_block(float* values, int64_t n, BlockCodec codec) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, codable(values[i]));
  BlockSums sums;
  for (int64_t i = 0; i < n && codec == BlockCodec::kSign; ++i) {
    const uint32_t m = codable(values[i]);
    sums.sum += in_units_of(largest, m);
    sums.count += m != 0 ? 1 : 0;
  }
  const uint32_t scale = largest == 0 ? 0 : block_scale(codec, largest, sums);
  for (int64_t i = 0; i < n; ++i) values[i] = quantized(values[i], codec, scale);
}

// Slots [starts[s], starts[s] + nnz[s]) of each segment s, from the first on in blocks of kValueBlock.
template <class Pool>
void quantize_blocks(float* values, int64_t segments, const int64_t* starts, const int64_t* nnz,
                     BlockCodec codec, const Pool& pool) {
  static_assert(kChunk % kValueBlock == 0);
  std::vector<Range> ranges;
  for (int64_t s = 0; s < segments; ++s) append_ranges(ranges, s, std::max<int64_t>(nnz[s], 0));
  pool(static_cast<int64_t>(ranges.size()), [&](int64_t i) {
    const Range& range = ranges[static_cast<size_t>(i)];
    float* const from = values + starts[range.segment];
    for (int64_t at = range.begin; at < range.end; at += kValueBlock) {
      quantize_block(from + at, std::min(kValueBlock, range.end - at), codec);
    }
  });
}

}  // namespace dgs::cpu
