// SPDX-License-Identifier: Apache-2.0
// The streams of one block: gaps in Golomb-Rice code with the low bits and the unary parts apart.
#pragma once

#include <cstdint>
#include <span>

#include "wire/block.h"
#include "wire/bytes.h"
#include "wire/status.h"

namespace dgs::wire {

// The cheapest block for strictly increasing `indices` ([n], n >= 1; at most kMaxBlockCount unless
// consecutive).
Block plan_block(std::span<const std::uint64_t> indices);

// `streams` has exactly block.stream_bytes() bytes and is overwritten.
void write_streams(const Block& block, std::span<const std::uint64_t> indices, Bytes streams);

// Writes exactly block.count indices; after an error they are garbage. `block` comes from read_entry.
Status read_streams(const Block& block, ConstBytes streams, std::int64_t* indices);

}  // namespace dgs::wire
