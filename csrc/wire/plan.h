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
inline constexpr std::uint64_t kBlockCount = 4096;
// Consecutive indices that are worth two more directory entries.
inline constexpr std::uint64_t kLongRun = 256;
// Neighbouring blocks are joined up to so many indices in all, and so many blocks at once.
inline constexpr std::uint64_t kMergeCount = 512;
inline constexpr std::size_t kMostJoined = 5;

// Appends blocks for indices[begin, end), all of one segment, where `blocks` already cover indices[0, begin).
void plan_segment(std::span<const std::uint64_t> indices, std::uint64_t begin, std::uint64_t end,
                  std::vector<Block>* blocks);

// At most this many blocks come of `entries` indices in `segments` segments.
constexpr std::uint64_t max_blocks(std::uint64_t entries, std::uint64_t segments) {
  return segments + entries / kBlockCount + 2 * (entries / kLongRun);
}

}  // namespace dgs::wire
