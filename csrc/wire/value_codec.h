// SPDX-License-Identifier: Apache-2.0
// float32 values as float32, float16 or bfloat16. The wire never rounds: what the format does not hold
// exactly is refused, and so is what is not finite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/bytes.h"
#include "wire/header.h"
#include "wire/status.h"

namespace dgs::wire {

// Bytes per value of the codecs that have a width; 1 for an opaque body.
constexpr std::size_t value_bytes(Codec codec) {
  return codec == Codec::kFloat32 ? 4 : codec == Codec::kBytes ? 1 : 2;
}

// What is wrong with the first unsendable value, at `position`; ok if there is none. `packed` holds
// values.size() * value_bytes(codec) bytes and is overwritten.
Status pack_values(Codec codec, std::span<const float> values, Bytes packed);

// The same of as many values as `packed` has room for, from `begin` on; `position` is that in all of them.
Status pack_range(Codec codec, std::span<const float> values, std::size_t begin, Bytes packed);

// Values that no sender may send are refused: not finite, and in a sparse body also ±0.
Status unpack_values(Codec codec, ConstBytes packed, bool allow_zero, std::span<float> values);

}  // namespace dgs::wire
