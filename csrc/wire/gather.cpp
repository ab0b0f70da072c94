// SPDX-License-Identifier: Apache-2.0
#include "wire/gather.h"

#include <algorithm>
#include <array>
#include <string>

#include "wire/block_values.h"
#include "wire/plan.h"
#include "wire/vectors.h"

namespace dgs::wire {
namespace {

Status check_segment(const Entries& entries, std::size_t s) {
  const std::int64_t start = entries.starts[s], end = entries.starts[s + 1], nnz = entries.nnz[s];
  const auto slots = static_cast<std::int64_t>(entries.indices.size());
  if (start < 0 || end < start || end > slots) {
    return fail(Code::kArgument, "starts", s,
                "must be non-decreasing and end within the " + std::to_string(slots) + " slots");
  }
  if (nnz < 0 || nnz > end - start) {
    return fail(
        Code::kArgument, "nnz", s,
        "must be 0 to " + std::to_string(end - start) + " for this segment, got " + std::to_string(nnz));
  }
  return {};
}

Status check_entries(const Entries& entries) {
  if (entries.values.size() != entries.indices.size()) {
    return fail(Code::kArgument, "values", entries.values.size(), "must be as many as the indices");
  }
  if (entries.starts.size() != entries.nnz.size() + 1) {
    return fail(Code::kArgument, "starts", entries.starts.size(), "must be one longer than nnz");
  }
  for (std::size_t s = 0; s < entries.nnz.size(); ++s) DGS_WIRE_TRY(check_segment(entries, s));
  return {};
}

// Piece after piece, each with the room that its blocks may need; returns how much that is. An index out of
// order makes `next` of the piece after it wrong, which does not matter: its own piece comes first and
// refuses it.
std::size_t cut(const Entries& entries, std::vector<Piece>* pieces) {
  static_assert(kPieceCount % kValueBlock == 0);
  pieces->clear();
  Piece piece;
  for (std::size_t s = 0; s < entries.nnz.size(); ++s) {
    piece.slot = static_cast<std::size_t>(entries.starts[s]);
    const std::size_t end = piece.slot + static_cast<std::size_t>(entries.nnz[s]);
    while (piece.slot < end) {
      piece.slots = std::min(end - piece.slot, kPieceCount);
      pieces->push_back(piece);
      piece.slot += piece.slots;
      piece.block += max_blocks(piece.slots);
      piece.next = static_cast<std::uint64_t>(entries.indices[piece.slot - 1]) + 1;
    }
  }
  return piece.block;
}

Status disordered(const Entries& entries, const Piece& piece, std::uint64_t numel) {
  std::uint64_t next = piece.next;
  for (std::size_t i = piece.slot; i < piece.slot + piece.slots; ++i) {
    const auto index = static_cast<std::uint64_t>(entries.indices[i]);  // a negative one is far above numel
    if (index < next || index >= numel) {
      return fail(Code::kBadIndex, "indices", i,
                  "the index at this position, " + std::to_string(entries.indices[i]) +
                      ", is not above the one before it and below numel = " + std::to_string(numel));
    }
    next = index + 1;
  }
  return {};
}

// Whether the indices lie in [next, numel) and increase, without a branch per index: where none has a bit
// above 2^48, a step that is not upward shows in the bits above.
bool ordered(std::span<const std::int64_t> indices, std::uint64_t next, std::uint64_t numel) {
  auto seen = static_cast<std::uint64_t>(indices[0]);
  const std::uint64_t first = seen;
  seen |= vectorised(
      [](std::span<const std::int64_t> all) DGS_WIRE_INLINE {
        std::uint64_t bits = 0;
        for (std::size_t i = 1; i < all.size(); ++i) {
          const auto index = static_cast<std::uint64_t>(all[i]);
          bits |= index | (index - static_cast<std::uint64_t>(all[i - 1]) - 1);
        }
        return bits;
      },
      indices);
  return seen < 2 * kMaxNumel && first >= next && static_cast<std::uint64_t>(indices.back()) < numel;
}

void count_values(std::span<const float> values, Codec codec, Piece* piece) {
  const std::size_t together = in_blocks(codec) ? kValueBlock : kPieceCount;
  piece->kept = 0;
  for (std::size_t i = 0; i < values.size(); i += together) {
    const std::size_t count = count_nonzero(values.subspan(i, std::min(together, values.size() - i)));
    piece->kept += count;
    if (!in_blocks(codec) || count == 0) continue;
    piece->tables += 1;
    piece->codes += code_bytes(codec, count);
  }
}

std::size_t plan_nonzero(std::span<const std::uint64_t> indices, std::span<const float> values,
                         Block* planned) {
  std::uint64_t together[kPieceCount];
  return plan({together, copy_nonzero(indices, values, together)}, planned);
}

Status gather_piece(const Entries& entries, Codec codec, std::uint64_t numel, Piece* piece, Block* planned) {
  const auto indices = entries.indices.subspan(piece->slot, piece->slots);
  const auto values = entries.values.subspan(piece->slot, piece->slots);
  if (!ordered(indices, piece->next, numel)) return disordered(entries, *piece, numel);
  count_values(values, codec, piece);
  piece->blocks = piece->no_zeros() ? plan(unsigned_of(indices), planned)
                                    : plan_nonzero(unsigned_of(indices), values, planned);
  return {};
}

// The indices of the last blocks, as many as may be joined.
class Tail {
 public:
  void add(const Entries& entries, const Piece& piece, const Block& block) {
    if (block.count > kMergeCount) {  // it is joined with none, and nothing before it with what follows
      count_ = 0;
      return;
    }
    if (count_ + block.count > indices_.size()) {
      std::copy_n(indices_.begin() + (count_ - kMergeCount), kMergeCount, indices_.begin());
      count_ = kMergeCount;
    }
    std::uint64_t* const to = indices_.data() + count_;
    const auto found =
        Cursor(entries, {&piece, 1}, block.first).take(unsigned_of(entries.indices), block.count, to);
    if (found.data() != to) std::copy(found.begin(), found.end(), to);
    count_ += block.count;
  }

  std::span<const std::uint64_t> indices() const { return {indices_.data(), count_}; }

 private:
  std::array<std::uint64_t, 2 * kMergeCount> indices_;
  std::size_t count_ = 0;
};

void join_pieces(const Entries& entries, Scratch* scratch) {
  Tail tail;
  std::size_t entry = 0;
  scratch->blocks.clear();
  for (Piece& piece : scratch->pieces) {
    piece.entry = entry;
    entry += piece.kept;
    for (std::size_t i = piece.block; i < piece.block + piece.blocks; ++i) {
      tail.add(entries, piece, scratch->planned[i]);
      append(tail.indices(), scratch->planned[i], &scratch->blocks);
    }
  }
}

}  // namespace

Status gather(const Entries& entries, Codec codec, std::uint64_t numel, Scratch* scratch, Pool* pool) {
  DGS_WIRE_TRY(check_entries(entries));
  scratch->planned.resize(cut(entries, &scratch->pieces));
  FirstFailure failure;
  pool->each(scratch->pieces.size(), [&](std::size_t i) {
    Piece* const piece = &scratch->pieces[i];
    failure.note(i, gather_piece(entries, codec, numel, piece, scratch->planned.data() + piece->block));
  });
  DGS_WIRE_TRY(failure.take());
  join_pieces(entries, scratch);
  return {};
}

}  // namespace dgs::wire
