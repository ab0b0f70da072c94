// SPDX-License-Identifier: Apache-2.0
#include "wire/directory.h"

#include <string>

namespace dgs::wire {
namespace {

Status read_varint(Reader* reader, const char* field, std::uint64_t* value) {
  const Code code = reader->varint(value);
  if (code == Code::kOk) return {};
  return fail(code, field, reader->position(),
              code == Code::kTruncated ? "the body ends inside the directory, at the given offset"
                                       : "not the shortest varint, at the given offset of the body");
}

Status check_streams(const Block& block) {
  if (block.form == BlockForm::kRun) return {};
  if (block.count < 2 || block.count > kMaxBlockCount) {
    return fail(Code::kBadDirectory, "block count", block.count, "a rice block has 2 to 65536 indices");
  }
  if (block.skipped() == 0) {
    return fail(Code::kNonCanonical, "block tag", block.rice + 1u, "consecutive indices must be a run block");
  }
  // The quotients add up to at most skipped >> rice, so that a lying length cannot send the decoder astray.
  const std::uint64_t most = (block.gaps() + (block.skipped() >> block.rice) + 7) / 8;
  if (block.unary_bytes < (block.gaps() + 7) / 8 || block.unary_bytes > most) {
    return fail(
        Code::kBadDirectory, "block unary bytes", block.unary_bytes,
        "must be " + std::to_string((block.gaps() + 7) / 8) + " to " + std::to_string(most) + " here");
  }
  return {};
}

}  // namespace

std::size_t entry_bytes(const Block& block, std::uint64_t next) {
  const std::size_t bytes = 1 + varint_size(block.count) + varint_size(block.first - next);
  if (block.form == BlockForm::kRun) return bytes;
  return bytes + varint_size(block.span) + varint_size(block.unary_bytes);
}

void write_entry(const Block& block, std::uint64_t next, Writer* writer) {
  const bool run = block.form == BlockForm::kRun;
  writer->write(static_cast<std::uint8_t>(run ? 0 : block.rice + 1));
  writer->varint(block.count);
  writer->varint(block.first - next);
  if (run) return;
  writer->varint(block.span);
  writer->varint(block.unary_bytes);
}

Status read_entry(Reader* reader, std::uint64_t next, std::uint64_t numel, Block* block) {
  std::uint8_t tag = 0;
  if (!reader->read(&tag)) {
    return fail(Code::kTruncated, "block tag", reader->position(), "the body ends inside the directory");
  }
  if (tag > kMaxRice + 1) {
    return fail(Code::kBadDirectory, "block tag", tag,
                "tags are 0 (run) and 1 to 48 (rice parameter 0 to 47)");
  }
  *block = {};
  block->form = tag == 0 ? BlockForm::kRun : BlockForm::kRice;
  block->rice = tag == 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(tag - 1);
  std::uint64_t skip = 0;
  DGS_WIRE_TRY(read_varint(reader, "block count", &block->count));
  DGS_WIRE_TRY(read_varint(reader, "block first", &skip));
  block->span = block->gaps();
  if (block->form == BlockForm::kRice) {
    DGS_WIRE_TRY(read_varint(reader, "block span", &block->span));
    DGS_WIRE_TRY(read_varint(reader, "block unary bytes", &block->unary_bytes));
  }
  if (block->count == 0) return fail(Code::kBadDirectory, "block count", 0, "a block has at least one index");
  if (skip >= numel - next) {
    return fail(Code::kBadIndex, "block first", skip, "the block begins past the end of the vector");
  }
  block->first = next + skip;
  if (block->span < block->gaps() || block->span >= numel - block->first) {
    return fail(Code::kBadIndex, "block span", block->span,
                "too short for its count, or past the end of the vector");
  }
  return check_streams(*block);
}

}  // namespace dgs::wire
