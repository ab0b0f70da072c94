// SPDX-License-Identifier: Apache-2.0
// The directory of a sparse body: everything about its blocks but their streams. It is read and checked as a
// whole before any stream is touched, and tells where each block's streams, indices and values lie.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wire/block.h"
#include "wire/bytes.h"
#include "wire/status.h"

namespace dgs::wire {

inline constexpr std::size_t kMaxEntryBytes = 1 + 4 * 7;  // a tag and four varints below 2^49

// `next` is the lowest index that the block may begin with: one past the last index of the block before.
std::size_t entry_bytes(const Block& block, std::uint64_t next);
void write_entry(const Block& block, std::uint64_t next, Writer* writer);

// Reads and checks one entry against the room left, [next, numel).
Status read_entry(Reader* reader, std::uint64_t next, std::uint64_t numel, Block* block);

}  // namespace dgs::wire
