// SPDX-License-Identifier: Apache-2.0
// The values of a sparse body in a codec with a scale per block: a table of the blocks, then their codes.
// Like the directory of indices it is checked as a whole first, and tells where each block's codes and values
// lie.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/bytes.h"
#include "wire/gather.h"
#include "wire/header.h"
#include "wire/pool.h"
#include "wire/status.h"

namespace dgs::wire {

struct ValueSections {
  static constexpr std::size_t kMostParts = 64;
  std::array<Part, kMostParts> parts;
  std::size_t count = 0;
  ConstBytes table;
  ConstBytes codes;
};

// Reads and checks the table of `count` values; `section` is all that is left of the body.
Status read_value_table(Codec codec, ConstBytes section, std::uint64_t count, ValueSections* sections);

// Fills the first values of `values` with those of all blocks.
Status read_value_blocks(Codec codec, const ValueSections& sections, std::span<float> values, Pool* pool);

}  // namespace dgs::wire
