// SPDX-License-Identifier: Apache-2.0
// The value codecs, with and without a scale per block.
#pragma once

#include <algorithm>
#include <cmath>

#include "cuda/quantize.h"
#include "cuda/quantize_blocks.h"
#include "emulated_launcher.h"
#include "operands.h"

// float16 by the compiler's own type, bfloat16 by the definition of rounding to nearest even.
inline float rounded(float x, dgs::Codec codec) {
  if (codec == dgs::Codec::kFloat32) return x;
  if (codec == dgs::Codec::kFloat16)
    return static_cast<float>(static_cast<_Float16>(std::clamp(x, -65504.0f, 65504.0f)));
  int exponent = 0;
  std::frexp(x, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent, -125) - 8), limit = std::ldexp(255.0, 120);
  return static_cast<float>(std::clamp(std::nearbyint(x / unit) * unit, -limit, limit));
}

inline void test_quantize(const Case& c) {
  if (c.kind == Values::kNotFinite) return;  // clamp's view of a NaN is another
  for (const auto codec : {dgs::Codec::kFloat32, dgs::Codec::kFloat16, dgs::Codec::kBFloat16}) {
    Floats x = c.layout.values(c.kind, c.seed + 8), want;
    for (const float v : x) want.push_back(oracle::flush(rounded(v, codec)));
    EmulatedLauncher launcher;
    dgs::cuda::quantize(launcher, x.data(), static_cast<int64_t>(x.size()), codec);
    expect(x == want, "quantize_");
  }
}

// One block of values, by the formulas of block_codecs.h, which test_twins.py compares with the twins.
inline void quantize_block(float* x, size_t n, dgs::BlockCodec codec) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, dgs::codable(x[i]));
  if (largest == 0) {
    for (size_t i = 0; i < n; ++i) x[i] = std::isnan(x[i]) ? x[i] : 0.0f;
    return;
  }
  dgs::BlockSums sums;
  for (size_t i = 0; i < n; ++i) {
    sums.sum += dgs::in_units_of(largest, dgs::codable(x[i]));
    sums.count += dgs::codable(x[i]) != 0;
  }
  const uint32_t scale = dgs::block_scale(codec, largest, sums);
  for (size_t i = 0; i < n; ++i) x[i] = dgs::quantized(x[i], codec, scale);
}

// A whole block and less of each segment's slots is filled, or the segment has failed.
inline void test_quantize_blocks(const Case& c) {
  Buffers sent(c.layout);
  for (size_t j = 0; j < sent.values.size(); ++j) sent.values[j] = std::ldexp(1.0f + j % 5, j % 9 - 4);
  const Floats x = c.layout.values(c.kind, c.seed + 9);
  std::copy_n(x.begin(), std::min(x.size(), sent.values.size()), sent.values.begin());
  for (int64_t s = 0; s < c.layout.size(); ++s)
    sent.nnz[Layout::at(s)] = (s + c.seed) % 7 == 6 ? -1 : c.layout.slots(s) - c.layout.slots(s) / 5;
  for (int64_t number = dgs::kFirstBlockCodec; number <= dgs::kLastBlockCodec; ++number) {
    const auto codec = static_cast<dgs::BlockCodec>(number);
    Floats got = sent.values, want = sent.values;
    for (int64_t s = 0; s < c.layout.size(); ++s) {
      const int64_t filled = sent.nnz[Layout::at(s)];
      for (int64_t i = 0; i < filled; i += dgs::kValueBlock)
        quantize_block(want.data() + c.layout.starts[Layout::at(s)] + i,
                       static_cast<size_t>(std::min(dgs::kValueBlock, filled - i)), codec);
    }
    EmulatedLauncher launcher;
    dgs::cuda::quantize_blocks(launcher, c.layout.segments(), got.data(), c.layout.starts.data(),
                               sent.nnz.data(), codec, std::max(c.chunk, dgs::kValueBlock));
    expect(same_bits(got, want), "quantize_blocks_");
  }
}
