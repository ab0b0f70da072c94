// SPDX-License-Identifier: Apache-2.0
#include "wire/entries.h"

namespace dgs::wire {

Cursor::Cursor(const Entries& entries, std::span<const Piece> pieces, std::uint64_t index)
    : entries_(entries), pieces_(pieces), piece_(pieces.data()), slot_(piece_->slot) {
  seek(index);
}

void Cursor::seek(std::uint64_t index) {
  const auto indices = unsigned_of(entries_.indices);
  if (slot_ < piece_->end() && indices[slot_] == index) return;
  const auto before = [&](const Piece& piece) { return indices[piece.end() - 1] < index; };
  piece_ = std::partition_point(piece_, pieces_.data() + pieces_.size(), before);
  const auto in_piece = indices.subspan(piece_->slot, piece_->slots);
  const auto found = std::lower_bound(in_piece.begin(), in_piece.end(), index);
  slot_ = piece_->slot + static_cast<std::size_t>(found - in_piece.begin());
}

std::uint64_t index_of(const Entries& entries, std::span<const Piece> pieces, std::uint64_t entry) {
  const auto behind = [&](const Piece& piece) { return piece.entry + piece.kept <= entry; };
  const auto piece = std::partition_point(pieces.begin(), pieces.end(), behind);
  std::size_t slot = piece->slot;
  for (std::uint64_t at = piece->entry;; ++slot) {
    if (count_nonzero(entries.values.subspan(slot, 1)) == 0) continue;
    if (at++ == entry) return unsigned_of(entries.indices)[slot];
  }
}

}  // namespace dgs::wire
