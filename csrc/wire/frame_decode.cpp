// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <string>

#include "wire/block_values.h"
#include "wire/directory.h"
#include "wire/frame.h"
#include "wire/index_codec.h"
#include "wire/plan.h"
#include "wire/value_blocks.h"
#include "wire/value_codec.h"
#include "wire/xxh64.h"

namespace dgs::wire {
namespace {

Status check_length(const Header& header, std::uint64_t frame_bytes) {
  const std::uint64_t found = frame_bytes - kHeaderBytes;
  if (found == header.payload_length) return {};
  return fail(found < header.payload_length ? Code::kTruncated : Code::kTrailing, "payload_length",
              header.payload_length, "the frame carries " + std::to_string(found) + " bytes of payload");
}

Status check_room(std::uint64_t needed, std::uint64_t room, const char* buffer) {
  if (needed <= room) return {};
  return fail(Code::kCapacity, buffer, room, "the frame holds " + std::to_string(needed) + " of them");
}

// Blocks that one task decodes, and where the directory speaks of them.
struct Span {
  Reader directory{{}};
  std::uint64_t next = 0;  // the lowest index that the first block may begin with
  Part part;
};

// The places of a sparse body's parts, known once its whole directory has been checked: as many as threads
// are any use for, in memory of fixed size.
struct Sections {
  static constexpr std::size_t kMostSpans = 64;
  std::array<Span, kMostSpans> spans;
  std::size_t count = 0;
  ConstBytes streams;
  ConstBytes values;
};

// Reads all entries, and begins a new span where the one before has its share.
Status read_directory(Reader* reader, std::uint64_t blocks, std::uint64_t entries, std::uint64_t numel,
                      Sections* sections) {
  const std::uint64_t share = std::max<std::uint64_t>(kPieceCount, entries / Sections::kMostSpans + 1);
  Span span{*reader, 0, {}};
  std::uint64_t next = 0, count = 0;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    Block block;
    DGS_WIRE_TRY(read_entry(reader, next, numel, &block));
    next = block.last() + 1;
    count += block.count;
    Part& part = span.part;
    part.blocks += 1;
    part.entries += block.count;
    part.bytes += block.stream_bytes();
    if (part.entries < share && i + 1 < blocks) continue;
    if (sections->count < Sections::kMostSpans) sections->spans[sections->count++] = span;
    span = {*reader, next, {0, 0, part.entry + part.entries, 0, part.stream + part.bytes, 0}};
  }
  if (count == entries) return {};
  return fail(Code::kBadCount, "count", entries, "the blocks hold " + std::to_string(count) + " indices");
}

// What is behind the streams is the value blocks', whose own table says how long it is.
Status split_blocks(Reader* reader, std::uint64_t stream_bytes, Sections* sections) {
  if (!reader->take(stream_bytes, &sections->streams)) {
    return fail(Code::kTruncated, "body", reader->remaining(), "the body ends inside its streams");
  }
  (void)reader->take(reader->remaining(), &sections->values);
  return {};
}

Status read_sections(ConstBytes body, const Header& header, std::uint64_t numel, Sections* sections) {
  Reader reader(body);
  std::uint64_t blocks = 0;
  if (const Code code = reader.varint(&blocks); code != Code::kOk) {
    return fail(code, "block count", reader.position(),
                "the body ends inside it, or it is not the shortest varint");
  }
  if (blocks > header.count) {
    return fail(Code::kBadDirectory, "block count", blocks, "more blocks than indices");
  }
  DGS_WIRE_TRY(read_directory(&reader, blocks, header.count, numel, sections));
  std::uint64_t stream_bytes = 0;
  if (sections->count > 0) {
    const Part& last = sections->spans[sections->count - 1].part;
    stream_bytes = last.stream + last.bytes;
  }
  if (in_blocks(header.codec)) return split_blocks(&reader, stream_bytes, sections);
  const std::uint64_t needed = stream_bytes + header.count * value_bytes(header.codec);
  if (reader.remaining() != needed) {
    return fail(reader.remaining() < needed ? Code::kTruncated : Code::kTrailing, "body", reader.remaining(),
                "bytes after the directory; its blocks and values take " + std::to_string(needed));
  }
  if (!reader.take(stream_bytes, &sections->streams) ||
      !reader.take(needed - stream_bytes, &sections->values)) {
    return fail(Code::kTruncated, "body", reader.remaining(), "the body ends inside its streams");
  }
  return {};
}

Status read_span(Span span, ConstBytes all_streams, std::uint64_t numel, std::int64_t* indices) {
  Reader streams(all_streams.subspan(span.part.stream, span.part.bytes));
  for (std::uint64_t i = 0; i < span.part.blocks; ++i) {
    Block block;
    DGS_WIRE_TRY(read_entry(&span.directory, span.next, numel, &block));
    ConstBytes stream;
    if (!streams.take(block.stream_bytes(), &stream)) {
      return fail(Code::kTruncated, "body", streams.remaining(), "the body ends inside its streams");
    }
    DGS_WIRE_TRY(read_streams(block, stream, indices));
    span.next = block.last() + 1;
    indices += block.count;
  }
  return {};
}

Status read_values(Codec codec, const Sections& sections, std::size_t span, std::span<float> values) {
  const std::size_t width = value_bytes(codec);
  const Part& part = sections.spans[span].part;
  return unpack_values(codec, sections.values.subspan(part.entry * width, part.entries * width), false,
                       values.subspan(part.entry, part.entries));
}

Status read_sparse(ConstBytes body, const Header& header, std::uint64_t numel,
                   std::span<std::int64_t> indices, std::span<float> values, Pool* pool) {
  if (header.count > numel) {
    return fail(Code::kBadCount, "count", header.count,
                "more entries than the vector's " + std::to_string(numel));
  }
  DGS_WIRE_TRY(check_room(header.count, indices.size(), "indices"));
  DGS_WIRE_TRY(check_room(header.count, values.size(), "values"));
  Sections sections;
  DGS_WIRE_TRY(read_sections(body, header, numel, &sections));
  const std::size_t spans = sections.count;
  ValueSections blocks;
  if (in_blocks(header.codec)) {
    DGS_WIRE_TRY(read_value_table(header.codec, sections.values, header.count, &blocks));
  }
  FirstFailure failure;
  pool->each(spans, [&](std::size_t i) {
    const Part& part = sections.spans[i].part;
    failure.note(i, read_span(sections.spans[i], sections.streams, numel, indices.data() + part.entry));
    if (!in_blocks(header.codec)) failure.note(spans + i, read_values(header.codec, sections, i, values));
  });
  DGS_WIRE_TRY(failure.take());
  return in_blocks(header.codec) ? read_value_blocks(header.codec, blocks, values, pool) : Status{};
}

Status read_dense(ConstBytes body, const Header& header, std::uint64_t numel, std::span<float> values,
                  Pool* pool) {
  if (header.count != numel) {
    return fail(Code::kBadCount, "count", header.count,
                "a dense body holds the whole vector, " + std::to_string(numel));
  }
  if (in_blocks(header.codec)) {
    return fail(Code::kBadForm, "form", 0, "codecs with a scale per block have no dense form");
  }
  const std::uint64_t needed = numel * value_bytes(header.codec);
  if (body.size() != needed) {
    return fail(body.size() < needed ? Code::kTruncated : Code::kTrailing, "body", body.size(),
                "a dense body of this vector has " + std::to_string(needed) + " bytes");
  }
  DGS_WIRE_TRY(check_room(numel, values.size(), "values"));
  const std::size_t width = value_bytes(header.codec);
  FirstFailure failure;
  pool->each((numel + kPieceCount - 1) / kPieceCount, [&](std::size_t i) {
    const std::size_t begin = i * kPieceCount, count = std::min<std::size_t>(kPieceCount, numel - begin);
    failure.note(i, unpack_values(header.codec, body.subspan(begin * width, count * width), true,
                                  values.subspan(begin, count)));
  });
  return failure.take();
}

}  // namespace

Status decode(ConstBytes frame, std::uint64_t numel, std::optional<std::uint64_t> fingerprint,
              std::span<std::int64_t> indices, std::span<float> values, Decoded* decoded, Pool* pool) {
  if (numel > kMaxNumel) return fail(Code::kArgument, "numel", numel, "must be at most 2^48");
  DGS_WIRE_TRY(read_header(frame, &decoded->header));
  const Header& header = decoded->header;
  DGS_WIRE_TRY(check_length(header, frame.size()));
  if (fingerprint && *fingerprint != header.fingerprint) {
    return fail(Code::kLayoutMismatch, "fingerprint", header.fingerprint,
                "the sender's layout is not this side's, " + std::to_string(*fingerprint) +
                    "; build the same model on both sides");
  }
  const ConstBytes payload = frame.subspan(kHeaderBytes);
  if (xxh64(payload) != header.checksum) {
    return fail(Code::kChecksum, "checksum", header.checksum, "the payload was altered on its way");
  }
  decoded->meta = payload.first(header.meta_length);
  decoded->body = payload.subspan(header.meta_length);
  decoded->form = BodyForm::kOpaque;
  if (header.codec == Codec::kBytes) return {};
  if (decoded->body.empty())
    return fail(Code::kTruncated, "body", 0, "a body of values has at least one byte");
  decoded->form = static_cast<BodyForm>(decoded->body[0]);
  const ConstBytes body = decoded->body.subspan(1);
  if (decoded->form == BodyForm::kDense) return read_dense(body, header, numel, values, pool);
  if (decoded->form == BodyForm::kSparse) return read_sparse(body, header, numel, indices, values, pool);
  return fail(Code::kBadForm, "form", decoded->body[0], "bodies are dense (0) or sparse (1)");
}

}  // namespace dgs::wire
