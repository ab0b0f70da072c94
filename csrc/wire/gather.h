// SPDX-License-Identifier: Apache-2.0
// The first half of encoding: the entries that are sent, checked, side by side, and cut into blocks. Pieces
// of a segment are worked on in parallel; where they begin depends on the entries alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "wire/block.h"
#include "wire/pool.h"
#include "wire/status.h"

namespace dgs::wire {

// Selected entries of a flat vector; those of segment s are [starts[s], starts[s] + nnz[s]), the slots
// between are not read.
struct Entries {
  std::span<const std::int64_t> indices;  // [K], global, strictly increasing over the used slots
  std::span<const float> values;          // [K]
  std::span<const std::int64_t> starts;   // [S + 1]
  std::span<const std::int64_t> nnz;      // [S]
};

// Used slots of one segment.
struct Piece {
  std::size_t slot = 0;    // the first
  std::size_t slots = 0;   // at most kPieceCount
  std::uint64_t next = 0;  // the lowest index that may stand there
  std::size_t at = 0;      // where its entries go in the scratch
  std::size_t kept = 0;    // how many of them are not zero
  std::size_t block = 0;   // where its blocks go in `planned`
  std::size_t blocks = 0;
  std::size_t counts = 0;  // where its value blocks' counts go in `planned_counts`
};

// Blocks that one task writes or reads.
struct Part {
  std::size_t block = 0;  // the first, and so on
  std::size_t blocks = 0;
  std::uint64_t entry = 0;
  std::uint64_t entries = 0;
  std::uint64_t stream = 0;  // byte of the streams
  std::uint64_t bytes = 0;
};

// Memory that an encoder may keep between messages, so that steady state allocates nothing.
struct Scratch {
  std::vector<std::uint64_t> indices;
  std::vector<float> values;
  std::vector<Piece> pieces;
  std::vector<Block> planned, blocks;
  std::vector<Part> parts;
  std::vector<std::uint8_t> planned_counts, counts;  // of the values of each value block, where not 0
};

// Fills the scratch with the entries that are not zero, their blocks, and how many are left of each value
// block.
Status gather(const Entries& entries, std::uint64_t numel, Scratch* scratch, Pool* pool);

}  // namespace dgs::wire
