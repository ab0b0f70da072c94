// SPDX-License-Identifier: Apache-2.0
#include "wire/dense_values.h"

#include <algorithm>
#include <cstring>

#include "wire/plan.h"
#include "wire/value_codec.h"

namespace dgs::wire {
namespace {

constexpr std::size_t pieces(std::size_t values) { return (values + kPieceCount - 1) / kPieceCount; }

template <class Stored>
void scatter(std::span<const std::uint64_t> indices, const std::uint8_t* from, std::uint8_t* to) {
  for (const std::uint64_t index : indices) {
    std::memcpy(to + index * sizeof(Stored), from, sizeof(Stored));
    from += sizeof(Stored);
  }
}

// A piece's entries: packed side by side, some at a time, and then put where they belong.
Status scatter_piece(Codec codec, const Entries& entries, const Piece& piece, Bytes packed) {
  constexpr std::size_t kAtATime = 512;
  std::uint64_t room[kAtATime];
  float values_room[kAtATime];
  std::uint8_t together[kAtATime * sizeof(float)];
  const std::size_t width = value_bytes(codec);
  Cursor at(entries, {&piece, 1}, 0), values_at = at;
  for (std::size_t done = 0; done < piece.kept; done += kAtATime) {
    const std::size_t n = std::min(kAtATime, piece.kept - done);
    const auto indices = at.take(unsigned_of(entries.indices), n, room);
    Status status =
        pack_values(codec, values_at.take(entries.values, n, values_room), Bytes(together, n * width));
    if (!status.ok()) status.value += piece.entry + done;
    DGS_WIRE_TRY(std::move(status));
    width == 4 ? scatter<std::uint32_t>(indices, together, packed.data())
               : scatter<std::uint16_t>(indices, together, packed.data());
  }
  return {};
}

}  // namespace

Status pack_whole(Codec codec, std::span<const float> values, Bytes packed, Pool* pool) {
  const std::size_t width = value_bytes(codec);
  FirstFailure failure;
  pool->each(pieces(values.size()), [&](std::size_t i) {
    const std::size_t begin = i * kPieceCount, count = std::min(kPieceCount, values.size() - begin);
    failure.note(i, pack_range(codec, values, begin, packed.subspan(begin * width, count * width)));
  });
  return failure.take();
}

// A task owns the places from its piece's first index to the next one's.
Status pack_scattered(Codec codec, const Entries& entries, std::span<const Piece> pieces, Bytes packed,
                      Pool* pool) {
  const std::size_t width = value_bytes(codec), numel = packed.size() / width;
  const auto indices = unsigned_of(entries.indices);
  if (pieces.empty()) std::fill(packed.begin(), packed.end(), std::uint8_t{0});
  FirstFailure failure;
  pool->each(pieces.size(), [&](std::size_t i) {
    const std::size_t first = i == 0 ? 0 : indices[pieces[i].slot];
    const std::size_t last = i + 1 == pieces.size() ? numel : indices[pieces[i + 1].slot];
    std::fill_n(packed.data() + first * width, (last - first) * width, std::uint8_t{0});
    failure.note(i, scatter_piece(codec, entries, pieces[i], packed));
  });
  return failure.take();
}

}  // namespace dgs::wire
