// SPDX-License-Identifier: Apache-2.0
// How the encoder cuts indices into blocks. Any cut is a valid frame; this one looks for a small one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "wire/block.h"

namespace dgs::wire {

// Indices per block: ten bytes of directory are then 0.02 bits each.
inline constexpr std::size_t kBlockCount = 4096;
// Consecutive indices that are worth two more directory entries.
inline constexpr std::size_t kLongRun = 256;
// Neighbouring blocks are joined up to so many indices in all, and so many blocks at once.
inline constexpr std::uint64_t kMergeCount = 512;
inline constexpr std::size_t kMostJoined = 5;
// Indices that one task plans, or whose blocks one task writes.
inline constexpr std::size_t kPieceCount = 4 * kBlockCount;

// At most this many blocks come of one piece of so many indices.
constexpr std::size_t max_blocks(std::size_t indices) {
  return 1 + indices / kBlockCount + 2 * (indices / kLongRun);
}

// And of so many in so many segments, cut into pieces.
constexpr std::uint64_t max_blocks(std::uint64_t indices, std::uint64_t segments) {
  return segments + indices / kPieceCount + indices / kBlockCount + 2 * (indices / kLongRun);
}

// Blocks for increasing `indices` of one segment, written to `blocks` [max_blocks]; returns how many.
std::size_t plan(std::span<const std::uint64_t> indices, Block* blocks);

// Appends `block` to `blocks`, and joins the last of them where that is smaller. `last` ends with the indices
// of the last blocks, this one's included: of those, at least, that together come to no more than
// kMergeCount.
void append(std::span<const std::uint64_t> last, const Block& block, std::vector<Block>* blocks);

}  // namespace dgs::wire
