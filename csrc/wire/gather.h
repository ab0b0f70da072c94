// SPDX-License-Identifier: Apache-2.0
// The first half of encoding: the entries are checked and cut into blocks, and stay where they are. Pieces of
// a segment are worked on in parallel; where they begin depends on the entries alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "wire/block.h"
#include "wire/entries.h"
#include "wire/header.h"
#include "wire/pool.h"
#include "wire/status.h"

namespace dgs::wire {

// Blocks that one task writes or reads.
struct Part {
  std::size_t block = 0;  // the first, and so on
  std::size_t blocks = 0;
  std::uint64_t entry = 0;
  std::uint64_t entries = 0;
  std::uint64_t stream = 0;  // byte of the streams
  std::uint64_t bytes = 0;
};

// Memory that an encoder may keep between messages, so that steady state allocates nothing: a fortieth of
// what the entries take.
struct Scratch {
  std::vector<Piece> pieces;
  std::vector<Block> planned, blocks;
  std::vector<Part> parts;

  // How many entries are not zero.
  std::size_t kept() const { return pieces.empty() ? 0 : pieces.back().entry + pieces.back().kept; }
};

// Fills the scratch with the pieces of the entries and their blocks.
Status gather(const Entries& entries, Codec codec, std::uint64_t numel, Scratch* scratch, Pool* pool);

}  // namespace dgs::wire
