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

// Entries [begin, end) of all: packed side by side, some at a time, and then put where they belong.
Status scatter_range(Codec codec, std::span<const std::uint64_t> indices, std::span<const float> values,
                     std::size_t begin, std::size_t end, Bytes packed) {
  constexpr std::size_t kAtATime = 512;
  std::uint8_t together[kAtATime * sizeof(float)];
  for (std::size_t at = begin; at < end; at += kAtATime) {
    const std::size_t n = std::min(kAtATime, end - at), width = value_bytes(codec);
    DGS_WIRE_TRY(pack_range(codec, values, at, Bytes(together, n * width)));
    width == 4 ? scatter<std::uint32_t>(indices.subspan(at, n), together, packed.data())
               : scatter<std::uint16_t>(indices.subspan(at, n), together, packed.data());
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

// A task owns the slots from its first entry to the next task's.
Status pack_scattered(Codec codec, std::span<const std::uint64_t> indices, std::span<const float> values,
                      Bytes packed, Pool* pool) {
  const std::size_t width = value_bytes(codec), numel = packed.size() / width;
  if (values.size() == numel) return pack_whole(codec, values, packed, pool);
  FirstFailure failure;
  pool->each(std::max<std::size_t>(1, pieces(values.size())), [&](std::size_t i) {
    const std::size_t begin = i * kPieceCount, end = std::min(begin + kPieceCount, values.size());
    const std::size_t first = begin == 0 ? 0 : indices[begin];
    const std::size_t last = end == values.size() ? numel : indices[end];
    std::fill_n(packed.data() + first * width, (last - first) * width, std::uint8_t{0});
    failure.note(i, scatter_range(codec, indices, values, begin, end, packed));
  });
  return failure.take();
}

}  // namespace dgs::wire
