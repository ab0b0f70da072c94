// SPDX-License-Identifier: Apache-2.0
// The entries that are sent, read where they lie. Only where zeros, which are not sent, or unused slots stand
// between them are they put together, a block's at a time.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/half.h"
#include "wire/vectors.h"

namespace dgs::wire {

// Selected entries of a flat vector; those of segment s are [starts[s], starts[s] + nnz[s]), the slots
// between are not read. Nobody writes to them while they are encoded.
struct Entries {
  std::span<const std::int64_t> indices;  // [K], global, strictly increasing over the used slots
  std::span<const float> values;          // [K]
  std::span<const std::int64_t> starts;   // [S + 1]
  std::span<const std::int64_t> nnz;      // [S]
};

// Used slots of one segment: what one task looks at.
struct Piece {
  std::size_t slot = 0;    // the first
  std::size_t slots = 0;   // at most kPieceCount
  std::uint64_t next = 0;  // the lowest index that may stand there
  std::size_t kept = 0;    // how many of them are not zero
  std::size_t entry = 0;   // how many are not in all pieces before
  std::size_t block = 0;   // where its blocks go in `planned`
  std::size_t blocks = 0;
  std::size_t tables = 0;  // value blocks that are not all zeros, in codecs that have them
  std::size_t codes = 0;   // bytes of their codes

  bool no_zeros() const { return kept == slots; }
  std::size_t end() const { return slot + slots; }
};

// Indices that have been checked are as good as unsigned.
inline std::span<const std::uint64_t> unsigned_of(std::span<const std::int64_t> indices) {
  return {reinterpret_cast<const std::uint64_t*>(indices.data()), indices.size()};
}

// At most 2^32 - 1 of them, so that the compiler may count in the lanes of the values.
inline std::size_t count_nonzero(std::span<const float> values) {
  return vectorised(
      [](std::span<const float> all) DGS_WIRE_INLINE {
        std::uint32_t count = 0;
        for (const float value : all) count += is_zero(std::bit_cast<std::uint32_t>(value)) ? 0u : 1u;
        return count;
      },
      values);
}

// Those of `slots` whose value is not zero; returns how many. Each is written where the next one kept
// belongs, without a branch: which of them are zero is anyone's guess.
template <class T>
std::size_t copy_nonzero(std::span<const T> slots, std::span<const float> values, T* to) {
  constexpr std::size_t kAtATime = 8;
  std::size_t kept = 0, i = 0;
  const auto copy = [&](std::size_t at) {
    to[kept] = slots[at];
    kept += is_zero(std::bit_cast<std::uint32_t>(values[at])) ? 0 : 1;
  };
  for (; i + kAtATime <= slots.size(); i += kAtATime) {
    for (std::size_t j = 0; j < kAtATime; ++j) copy(i + j);
  }
  for (; i < slots.size(); ++i) copy(i);
  return kept;
}

// A place among the entries that are not zero.
class Cursor {
 public:
  // Before the first one whose index is `index` or more; there is one.
  Cursor(const Entries& entries, std::span<const Piece> pieces, std::uint64_t index);

  // Moves there.
  void seek(std::uint64_t index);

  // What `slots` holds for the next `count` entries, which there are: in place where they lie side by side,
  // else put together in `room` [count].
  template <class T>
  std::span<const T> take(std::span<const T> slots, std::size_t count, T* room) {
    if (slot_ == piece_->end()) slot_ = (++piece_)->slot;
    if (piece_->no_zeros() && count <= piece_->end() - slot_) {
      slot_ += count;
      return slots.subspan(slot_ - count, count);
    }
    for (std::size_t taken = 0; taken < count;) {
      if (slot_ == piece_->end()) slot_ = (++piece_)->slot;
      const std::size_t n = std::min(count - taken, piece_->end() - slot_);
      taken += copy_nonzero(slots.subspan(slot_, n), entries_.values.subspan(slot_, n), room + taken);
      slot_ += n;
    }
    return {room, count};
  }

 private:
  const Entries& entries_;
  std::span<const Piece> pieces_;
  const Piece* piece_;
  std::size_t slot_;
};

// The index of the entry that so many that are not zero stand before.
std::uint64_t index_of(const Entries& entries, std::span<const Piece> pieces, std::uint64_t entry);

}  // namespace dgs::wire
