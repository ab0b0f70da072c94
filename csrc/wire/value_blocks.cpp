// SPDX-License-Identifier: Apache-2.0
#include "wire/value_blocks.h"

#include <algorithm>
#include <string>

#include "wire/block_values.h"
#include "wire/plan.h"

namespace dgs::wire {
namespace {

Status check_entry(Codec codec, const ValueBlock& block, std::uint64_t position, std::uint64_t left) {
  if (block.count == 0) {
    return fail(Code::kBadDirectory, "value block count", position,
                "the value block at this place has no values");
  }
  if (block.count > left) {
    return fail(Code::kBadCount, "value block count", block.count,
                "only " + std::to_string(left) + " values are left for this block");
  }
  if (!valid_scale(codec, block.scale)) {
    return fail(Code::kBadValue, "value block scale", block.scale, "not a scale of this codec");
  }
  return {};
}

Status read_part(Codec codec, const ValueSections& sections, const Part& part, std::span<float> values) {
  const std::size_t entry_size = table_bytes(codec);
  const std::uint8_t* entry = sections.table.data() + part.block * entry_size;
  std::uint64_t at = part.entry, stream = part.stream;
  for (std::uint64_t i = 0; i < part.blocks; ++i, entry += entry_size) {
    const ValueBlock block = read_table_entry(codec, entry);
    const std::size_t bytes = code_bytes(codec, block.count);
    if (!unpack_block(codec, block, sections.codes.subspan(stream, bytes), values.data() + at)) {
      return fail(
          Code::kBadValue, "values", at,
          "the block that begins at this position has a code without a value, or padding that is not zero");
    }
    at += block.count;
    stream += bytes;
  }
  return {};
}

}  // namespace

Status read_value_table(Codec codec, ConstBytes section, std::uint64_t count, ValueSections* sections) {
  const std::uint64_t share = std::max<std::uint64_t>(kPieceCount, count / ValueSections::kMostParts + 1);
  const std::size_t entry_size = table_bytes(codec);
  Part part;
  std::uint64_t blocks = 0;
  for (std::uint64_t left = count; left > 0; ++blocks) {
    if (section.size() < (blocks + 1) * entry_size) {
      return fail(Code::kTruncated, "body", section.size(), "the body ends inside the table of value blocks");
    }
    const ValueBlock block = read_table_entry(codec, section.data() + blocks * entry_size);
    DGS_WIRE_TRY(check_entry(codec, block, blocks, left));
    left -= block.count;
    part.blocks += 1;
    part.entries += block.count;
    part.bytes += code_bytes(codec, block.count);
    if (part.entries < share && left > 0) continue;
    sections->parts[sections->count++] = part;
    part = {part.block + part.blocks, 0, part.entry + part.entries, 0, part.stream + part.bytes, 0};
  }
  sections->table = section.first(blocks * entry_size);
  sections->codes = section.subspan(sections->table.size());
  if (sections->codes.size() == part.stream) return {};
  return fail(sections->codes.size() < part.stream ? Code::kTruncated : Code::kTrailing, "body",
              sections->codes.size(),
              "bytes after the table of value blocks; their codes take " + std::to_string(part.stream));
}

Status read_value_blocks(Codec codec, const ValueSections& sections, std::span<float> values, Pool* pool) {
  FirstFailure failure;
  pool->each(sections.count,
             [&](std::size_t i) { failure.note(i, read_part(codec, sections, sections.parts[i], values)); });
  return failure.take();
}

}  // namespace dgs::wire
