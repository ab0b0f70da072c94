// SPDX-License-Identifier: Apache-2.0
// The loops of loops.h that select nothing. Compiled once for each variant, as loops_body.h says.
#pragma once

#include "cpu/arithmetic_body.h"

namespace dgs::cpu::DGS_VARIANT {

// Puts all elements; returns the largest magnitude. From `first` on the vectors' stores are aligned, if they
// have to be.
template <class Put, class Op>
uint32_t put_all(const Op& op, int64_t begin, int64_t first, int64_t end) {
  uint32_t last = 0, ignored = 0;
  const auto one_by_one = [&](int64_t i, int64_t to) {
    for (; i < to; ++i) last = larger(last, magnitude(op.template at<float>(i, Put{}, ignored)));
  };
  one_by_one(begin, first);
  Bits largest = splat_bits(0);
  int64_t i = first;
  for (; i + kWord <= end; i += kWord) {
    op.template ahead<kWord>(i + kAhead);
#pragma GCC unroll 16
    for (int64_t j = 0; j < kWord; j += kLanes) {
      largest = larger(largest, magnitude(op.template at<Vec>(i + j, Put{}, largest)));
    }
  }
  one_by_one(i, end);
  return larger(last, largest_of(largest));
}

template <class G, bool kDecay>
bool scale_by(const Dense<G, kDecay>& op, int64_t begin, int64_t end, bool streamed) {
  if (!streamed) return put_all<Store>(op, begin, begin, end) < kInfinity;
  const int64_t aligned = begin + misaligned(op.q, begin);
  const uint32_t largest = put_all<Stream>(op, begin, aligned < end ? aligned : end, end);
  stream_end();
  return largest < kInfinity;
}
template <class G>
bool scale_as(const Gradient& g, const float* weights, float* q, int64_t begin, int64_t end, float lr,
              float weight_decay, bool streamed) {
  const G* data = static_cast<const G*>(g.data);
  if (weight_decay == 0.0f)
    return scale_by(Dense<G, false>{{data, weights, lr, 0.0f, 0.0f, 1.0f, kNothing}, q}, begin, end,
                    streamed);
  return scale_by(Dense<G, true>{{data, weights, lr, weight_decay, 0.0f, 1.0f, kNothing}, q}, begin, end,
                  streamed);
}
inline bool scale(const Gradient& g, const float* weights, float* q, int64_t begin, int64_t end, float lr,
                  float weight_decay, bool streamed) {
  const auto as = [&](auto type) {
    return scale_as<decltype(type)>(g, weights, q, begin, end, lr, weight_decay, streamed);
  };
  if (g.type == GradientType::kFloat32) return as(float{});
  if (g.type == GradientType::kFloat16) return as(Half{});
  if (g.type == GradientType::kBFloat16) return as(BFloat16{});
  for (int64_t i = begin; i < end; ++i) q[i] = 0.0f;
  return true;
}

template <Codec kCodec>
void quantize_as(float* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) values[i] = quantized(values[i], kCodec);
}
inline void quantize(float* values, int64_t n, Codec codec) {
  if (codec == Codec::kFloat32) quantize_as<Codec::kFloat32>(values, n);
  if (codec == Codec::kFloat16) quantize_as<Codec::kFloat16>(values, n);
  if (codec == Codec::kBFloat16) quantize_as<Codec::kBFloat16>(values, n);
}

// One block, n <= kValueBlock. A function for each codec, so that its loops are vectorised.
template <BlockCodec kCodec>
void quantize_block_as(float* values, int64_t n) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = larger(largest, codable(values[i]));
  BlockSums sums;
  for (int64_t i = 0; kCodec == BlockCodec::kSign && i < n; ++i) {
    const uint32_t m = codable(values[i]);
    sums.sum += in_units_of(largest, m);
    sums.count += m != 0 ? 1 : 0;
  }
  const uint32_t scale = largest == 0 ? 0 : block_scale(kCodec, largest, sums);
  for (int64_t i = 0; i < n; ++i) values[i] = quantized(values[i], kCodec, scale);
}
template <BlockCodec kCodec>
void quantize_blocks_as(float* values, int64_t n) {
  for (int64_t at = 0; at < n; at += kValueBlock)
    quantize_block_as<kCodec>(values + at, n - at < kValueBlock ? n - at : kValueBlock);
}
inline void quantize_blocks(float* values, int64_t n, BlockCodec codec) {
  if (codec == BlockCodec::kInt8) quantize_blocks_as<BlockCodec::kInt8>(values, n);
  if (codec == BlockCodec::kLevel4) quantize_blocks_as<BlockCodec::kLevel4>(values, n);
  if (codec == BlockCodec::kLevel3) quantize_blocks_as<BlockCodec::kLevel3>(values, n);
  if (codec == BlockCodec::kLevel2) quantize_blocks_as<BlockCodec::kLevel2>(values, n);
  if (codec == BlockCodec::kSign) quantize_blocks_as<BlockCodec::kSign>(values, n);
}

inline void add(float* x, const float* q, int64_t n, bool subtract) {
  if (subtract) {
    for (int64_t i = 0; i < n; ++i) x[i] = added(x[i], -q[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) x[i] = added(x[i], q[i]);
  }
}

inline uint32_t largest_difference(const float* x, const float* y, int64_t n) {
  return put_all<Discard>(Difference{x, y}, 0, 0, n);
}

}  // namespace dgs::cpu::DGS_VARIANT
