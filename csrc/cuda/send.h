// SPDX-License-Identifier: Apache-2.0
// What push_* and pull do with what they have selected. Defined beside the ops that do just that, so that
// their kernels are compiled once.
#pragma once

#include <vector>

#include "common/block_codecs.h"
#include "common/operands.h"

namespace dgs::cuda {

using torch::stable::Device;

void quantize_each(const Device& device, const Segments& segments, const Slots& slots, Codec codec);
void quantize_in_blocks(const Device& device, const Segments& segments, const Slots& slots, BlockCodec codec);

// codec: a Codec's or a BlockCodec's number.
inline void quantize_slots(const Device& device, const Segments& segments, const Slots& slots,
                           int64_t codec) {
  if (codec >= kFirstBlockCodec) {
    quantize_in_blocks(device, segments, slots, static_cast<BlockCodec>(codec));
  } else {
    quantize_each(device, segments, slots, static_cast<Codec>(codec));
  }
}

inline Entries entries_of(const Slots& slots) {
  return {slots.indices, slots.values, slots.starts, slots.nnz};
}

void take_out_of_velocity(const Device& device, const Segments& segments, const Slots& slots,
                          const std::vector<float*>& velocity, const float* keep);
void take_out_of_residual(const Device& device, const Segments& segments, const Slots& slots,
                          const std::vector<float*>& velocity, const std::vector<float*>& residual,
                          const int64_t* counts);
void add_to(const Device& device, const Segments& segments, const Slots& slots, const std::vector<float*>& x);

}  // namespace dgs::cuda
