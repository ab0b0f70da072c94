// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "wire/directory.h"
#include "wire/frame.h"
#include "wire/index_codec.h"
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

// Where the parts of a sparse body begin, once its whole directory has been checked.
struct Sections {
  std::uint64_t blocks = 0;
  Reader directory{{}};
  ConstBytes streams;
  ConstBytes values;
};

Status read_directory(ConstBytes body, const Header& header, std::uint64_t numel, Sections* sections) {
  Reader reader(body);
  if (const Code code = reader.varint(&sections->blocks); code != Code::kOk) {
    return fail(code, "block count", reader.position(),
                "the body ends inside it, or it is not the shortest varint");
  }
  if (sections->blocks > header.count) {
    return fail(Code::kBadDirectory, "block count", sections->blocks, "more blocks than indices");
  }
  sections->directory = reader;
  std::uint64_t next = 0, count = 0, stream_bytes = 0;
  for (std::uint64_t i = 0; i < sections->blocks; ++i) {
    Block block;
    DGS_WIRE_TRY(read_entry(&reader, next, numel, &block));
    next = block.last() + 1;
    count += block.count;
    stream_bytes += block.stream_bytes();
  }
  if (count != header.count) {
    return fail(Code::kBadCount, "count", header.count,
                "the blocks hold " + std::to_string(count) + " indices");
  }
  const std::uint64_t needed = stream_bytes + count * value_bytes(header.codec);
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

Status read_sparse(ConstBytes body, const Header& header, std::uint64_t numel,
                   std::span<std::int64_t> indices, std::span<float> values) {
  if (header.count > numel) {
    return fail(Code::kBadCount, "count", header.count,
                "more entries than the vector's " + std::to_string(numel));
  }
  DGS_WIRE_TRY(check_room(header.count, indices.size(), "indices"));
  DGS_WIRE_TRY(check_room(header.count, values.size(), "values"));
  Sections sections;
  DGS_WIRE_TRY(read_directory(body, header, numel, &sections));
  Reader streams(sections.streams);
  std::uint64_t next = 0;
  std::int64_t* to = indices.data();
  for (std::uint64_t i = 0; i < sections.blocks; ++i) {
    Block block;
    DGS_WIRE_TRY(read_entry(&sections.directory, next, numel, &block));
    ConstBytes stream;
    if (!streams.take(block.stream_bytes(), &stream)) {
      return fail(Code::kTruncated, "body", streams.remaining(), "the body ends inside its streams");
    }
    DGS_WIRE_TRY(read_streams(block, stream, to));
    next = block.last() + 1;
    to += block.count;
  }
  return unpack_values(header.codec, sections.values, false, values.first(header.count));
}

Status read_dense(ConstBytes body, const Header& header, std::uint64_t numel, std::span<float> values) {
  if (header.count != numel) {
    return fail(Code::kBadCount, "count", header.count,
                "a dense body holds the whole vector, " + std::to_string(numel));
  }
  const std::uint64_t needed = numel * value_bytes(header.codec);
  if (body.size() != needed) {
    return fail(body.size() < needed ? Code::kTruncated : Code::kTrailing, "body", body.size(),
                "a dense body of this vector has " + std::to_string(needed) + " bytes");
  }
  DGS_WIRE_TRY(check_room(numel, values.size(), "values"));
  return unpack_values(header.codec, body, true, values.first(numel));
}

}  // namespace

Status decode(ConstBytes frame, std::uint64_t numel, std::optional<std::uint64_t> fingerprint,
              std::span<std::int64_t> indices, std::span<float> values, Decoded* decoded) {
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
  if (decoded->form == BodyForm::kDense) return read_dense(body, header, numel, values);
  if (decoded->form == BodyForm::kSparse) return read_sparse(body, header, numel, indices, values);
  return fail(Code::kBadForm, "form", decoded->body[0], "bodies are dense (0) or sparse (1)");
}

}  // namespace dgs::wire
