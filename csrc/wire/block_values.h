// SPDX-License-Identifier: Apache-2.0
// The codecs with a scale per block of values. As everywhere, nothing is rounded: the scale of a block is
// read off its largest magnitude, and a value that is not exactly one of the numbers of that scale is
// refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/bytes.h"
#include "wire/header.h"
#include "wire/status.h"

namespace dgs::wire {

// Slots of a segment that share a scale: what the quantiser takes together (common/block_codecs.h).
inline constexpr std::size_t kValueBlock = 128;

constexpr bool in_blocks(Codec codec) { return codec >= Codec::kInt8; }

// Bits of a value's code.
constexpr unsigned code_bits(Codec codec) {
  return codec == Codec::kInt8     ? 8
         : codec == Codec::kLevel4 ? 4
         : codec == Codec::kLevel3 ? 3
         : codec == Codec::kLevel2 ? 2
                                   : 1;
}

// Bytes of a block's entry in the table: its number of values, and its scale.
constexpr std::size_t table_bytes(Codec codec) { return codec == Codec::kInt8 ? 2 : 3; }
constexpr std::size_t code_bytes(Codec codec, std::size_t values) {
  return (values * code_bits(codec) + 7) / 8;
}

struct ValueBlock {
  std::size_t count = 0;    // 1 to 255
  std::uint16_t scale = 0;  // what it means depends on the codec
};

bool valid_scale(Codec codec, std::uint16_t scale);

// The sections of the values in `slots`, kValueBlock of them to a block, less those that are zero and the
// blocks that have no others: `table` and `codes` have the bytes that they take. An error counts the values
// before it.
Status pack_blocks(Codec codec, std::span<const float> slots, Bytes table, Bytes codes);

ValueBlock read_table_entry(Codec codec, const std::uint8_t* entry);

// Fills values[block.count]; false where a code stands for no value, or padding is not zero.
bool unpack_block(Codec codec, const ValueBlock& block, ConstBytes codes, float* values);

}  // namespace dgs::wire
