// SPDX-License-Identifier: Apache-2.0
#include "wire/gather.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "wire/block_values.h"
#include "wire/half.h"
#include "wire/plan.h"

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

constexpr std::size_t value_blocks(std::size_t slots) { return (slots + kValueBlock - 1) / kValueBlock; }

// Piece after piece, each with the room that it may need; returns one that would begin behind them all. An
// index out of order makes `next` of the piece after it wrong, which does not matter: its own piece comes
// first and refuses it.
Piece cut(const Entries& entries, std::vector<Piece>* pieces) {
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
      piece.at += piece.slots;
      piece.block += max_blocks(piece.slots);
      piece.counts += value_blocks(piece.slots);
      piece.next = static_cast<std::uint64_t>(entries.indices[piece.slot - 1]) + 1;
    }
  }
  return piece;
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
  for (std::size_t i = 1; i < indices.size(); ++i) {
    const auto index = static_cast<std::uint64_t>(indices[i]);
    seen |= index | (index - static_cast<std::uint64_t>(indices[i - 1]) - 1);
  }
  return seen < 2 * kMaxNumel && first >= next && static_cast<std::uint64_t>(indices.back()) < numel;
}

bool any_zero(std::span<const float> values) {
  std::uint32_t found = 0;
  for (const float value : values) found |= is_zero(std::bit_cast<std::uint32_t>(value)) ? ~0u : 0u;
  return found != 0;
}

// The entries of one value block that are not zero; returns how many. Each is written where the next one kept
// belongs, without a branch: which of them are zero is anyone's guess.
std::size_t copy_nonzero(std::span<const std::int64_t> from, std::span<const float> values,
                         std::uint64_t* indices, float* to) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < from.size(); ++i) {
    indices[kept] = static_cast<std::uint64_t>(from[i]);
    to[kept] = values[i];
    kept += is_zero(std::bit_cast<std::uint32_t>(values[i])) ? 0 : 1;
  }
  return kept;
}

std::size_t copy(std::span<const std::int64_t> from, std::span<const float> values, std::uint64_t* indices,
                 float* to, std::uint8_t* counts) {
  if (!any_zero(values)) {
    std::memcpy(indices, from.data(), from.size_bytes());
    std::memcpy(to, values.data(), values.size_bytes());
    std::fill_n(counts, value_blocks(from.size()), static_cast<std::uint8_t>(kValueBlock));
    if (from.size() % kValueBlock != 0) {
      counts[from.size() / kValueBlock] = static_cast<std::uint8_t>(from.size() % kValueBlock);
    }
    return from.size();
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < from.size(); i += kValueBlock) {
    const std::size_t n = std::min(kValueBlock, from.size() - i);
    const std::size_t more =
        copy_nonzero(from.subspan(i, n), values.subspan(i, n), indices + kept, to + kept);
    *counts++ = static_cast<std::uint8_t>(more);
    kept += more;
  }
  return kept;
}

Status gather_piece(const Entries& entries, std::uint64_t numel, Piece* piece, Scratch* scratch) {
  const auto indices = entries.indices.subspan(piece->slot, piece->slots);
  const auto values = entries.values.subspan(piece->slot, piece->slots);
  if (!ordered(indices, piece->next, numel)) return disordered(entries, *piece, numel);
  std::uint64_t* const to = scratch->indices.data() + piece->at;
  piece->kept = copy(indices, values, to, scratch->values.data() + piece->at,
                     scratch->planned_counts.data() + piece->counts);
  piece->blocks = plan({to, piece->kept}, scratch->planned.data() + piece->block);
  return {};
}

// Moves the pieces together where zeros have left holes, and their blocks.
void join_pieces(Scratch* scratch) {
  std::size_t at = 0;
  scratch->blocks.clear();
  for (const Piece& piece : scratch->pieces) {
    if (at != piece.at) {
      std::copy_n(scratch->indices.begin() + static_cast<std::ptrdiff_t>(piece.at), piece.kept,
                  scratch->indices.begin() + static_cast<std::ptrdiff_t>(at));
      std::copy_n(scratch->values.begin() + static_cast<std::ptrdiff_t>(piece.at), piece.kept,
                  scratch->values.begin() + static_cast<std::ptrdiff_t>(at));
    }
    for (std::size_t i = piece.block; i < piece.block + piece.blocks; ++i) {
      at += scratch->planned[i].count;
      append(std::span<const std::uint64_t>(scratch->indices).first(at), scratch->planned[i],
             &scratch->blocks);
    }
  }
  scratch->indices.resize(at);
  scratch->values.resize(at);
  scratch->counts.clear();
  for (const std::uint8_t count : scratch->planned_counts) {
    if (count != 0) scratch->counts.push_back(count);
  }
}

}  // namespace

Status gather(const Entries& entries, std::uint64_t numel, Scratch* scratch, Pool* pool) {
  DGS_WIRE_TRY(check_entries(entries));
  const Piece end = cut(entries, &scratch->pieces);
  scratch->indices.resize(end.at);
  scratch->values.resize(end.at);
  scratch->planned.resize(end.block);
  scratch->planned_counts.resize(end.counts);
  FirstFailure failure;
  pool->each(scratch->pieces.size(), [&](std::size_t i) {
    failure.note(i, gather_piece(entries, numel, &scratch->pieces[i], scratch));
  });
  DGS_WIRE_TRY(failure.take());
  join_pieces(scratch);
  return {};
}

}  // namespace dgs::wire
