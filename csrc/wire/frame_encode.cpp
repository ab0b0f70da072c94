// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "wire/block_values.h"
#include "wire/dense_values.h"
#include "wire/directory.h"
#include "wire/frame.h"
#include "wire/index_codec.h"
#include "wire/plan.h"
#include "wire/value_codec.h"
#include "wire/xxh64.h"

namespace dgs::wire {
namespace {

constexpr std::size_t kMaxMeta = 65535;

std::uint64_t values_bytes(const Scratch& scratch, Codec codec) {
  if (!in_blocks(codec)) return scratch.kept() * value_bytes(codec);
  std::uint64_t bytes = 0;
  for (const Piece& piece : scratch.pieces) bytes += piece.tables * table_bytes(codec) + piece.codes;
  return bytes;
}

std::uint64_t sparse_bytes(const Scratch& scratch, Codec codec) {
  std::uint64_t bytes = 1 + varint_size(scratch.blocks.size()) + values_bytes(scratch, codec);
  std::uint64_t next = 0;
  for (const Block& block : scratch.blocks) {
    bytes += entry_bytes(block, next) + block.stream_bytes();
    next = block.last() + 1;
  }
  return bytes;
}

// The body's place in `out`, once it is known to fit.
Status claim_body(Header* header, ConstBytes meta, std::uint64_t body_bytes, Bytes out, Bytes* body) {
  if (meta.size() > kMaxMeta) {
    return fail(Code::kTooLarge, "meta", meta.size(), "meta data has at most 65535 bytes");
  }
  header->meta_length = static_cast<std::uint16_t>(meta.size());
  header->payload_length = meta.size() + body_bytes;
  if (out.size() < kHeaderBytes || out.size() - kHeaderBytes < header->payload_length) {
    return fail(Code::kCapacity, "out", out.size(),
                "the frame needs " + std::to_string(kHeaderBytes + header->payload_length) + " bytes");
  }
  if (!meta.empty()) std::memcpy(out.data() + kHeaderBytes, meta.data(), meta.size());
  *body = out.subspan(kHeaderBytes + meta.size(), body_bytes);
  return {};
}

std::size_t seal(Header header, Bytes out) {
  header.checksum = xxh64(out.subspan(kHeaderBytes, header.payload_length));
  write_header(header, out.data());
  return kHeaderBytes + header.payload_length;
}

void cut_parts(Scratch* scratch) {
  scratch->parts.clear();
  Part part;
  for (const Block& block : scratch->blocks) {
    part.blocks += 1;
    part.entries += block.count;
    part.bytes += block.stream_bytes();
    if (part.entries < kPieceCount) continue;
    scratch->parts.push_back(part);
    part = {part.block + part.blocks, 0, part.entry + part.entries, 0, part.stream + part.bytes, 0};
  }
  if (part.blocks > 0) scratch->parts.push_back(part);
}

void write_part(const Entries& entries, const Scratch& scratch, const Part& part, Bytes streams) {
  std::uint64_t room[kBlockCount];
  Cursor at(entries, scratch.pieces, scratch.blocks[part.block].first);
  std::uint64_t stream = part.stream;
  for (const Block& block : std::span(scratch.blocks).subspan(part.block, part.blocks)) {
    if (block.form == BlockForm::kRun) continue;
    at.seek(block.first);
    write_streams(block, at.take(unsigned_of(entries.indices), block.count, room),
                  streams.subspan(stream, block.stream_bytes()));
    stream += block.stream_bytes();
  }
}

Status pack_part(Codec codec, const Entries& entries, const Scratch& scratch, const Part& part,
                 Bytes packed) {
  constexpr std::size_t kAtATime = 1024;
  float room[kAtATime];
  const std::size_t width = value_bytes(codec);
  Cursor at(entries, scratch.pieces, scratch.blocks[part.block].first);
  for (std::uint64_t done = 0; done < part.entries; done += kAtATime) {
    const std::size_t n = std::min(kAtATime, part.entries - done);
    Status status = pack_values(codec, at.take(entries.values, n, room),
                                packed.subspan((part.entry + done) * width, n * width));
    if (!status.ok()) status.value += part.entry + done;
    DGS_WIRE_TRY(std::move(status));
  }
  return {};
}

// A piece's value blocks at a time: where they go follows from the pieces before it.
Status pack_all_blocks(Codec codec, const Entries& entries, Scratch* scratch, Bytes section, Pool* pool) {
  const std::size_t entry_size = table_bytes(codec);
  scratch->parts.clear();
  Part part;
  for (const Piece& piece : scratch->pieces) {
    part = {part.block + part.blocks, piece.tables, piece.entry, piece.kept,
            part.stream + part.bytes, piece.codes};
    scratch->parts.push_back(part);
  }
  const Bytes table = section.first((part.block + part.blocks) * entry_size),
              codes = section.subspan(table.size());
  FirstFailure failure;
  pool->each(scratch->parts.size(), [&](std::size_t i) {
    const Part& my = scratch->parts[i];
    const Piece& piece = scratch->pieces[i];
    Status status = pack_blocks(codec, entries.values.subspan(piece.slot, piece.slots),
                                table.subspan(my.block * entry_size, my.blocks * entry_size),
                                codes.subspan(my.stream, my.bytes));
    if (!status.ok()) status.value += my.entry;
    failure.note(i, std::move(status));
  });
  return failure.take();
}

Status write_sparse(const Entries& entries, Scratch* scratch, Codec codec, Bytes body, Pool* pool) {
  Writer writer(body);
  writer.write(static_cast<std::uint8_t>(BodyForm::kSparse));
  writer.varint(scratch->blocks.size());
  std::uint64_t next = 0;
  for (const Block& block : scratch->blocks) {
    write_entry(block, next, &writer);
    next = block.last() + 1;
  }
  cut_parts(scratch);
  const Bytes values = body.last(values_bytes(*scratch, codec));
  const Bytes streams = body.subspan(writer.position(), body.size() - writer.position() - values.size());
  FirstFailure failure;
  pool->each(scratch->parts.size(), [&](std::size_t i) {
    write_part(entries, *scratch, scratch->parts[i], streams);
    if (!in_blocks(codec)) failure.note(i, pack_part(codec, entries, *scratch, scratch->parts[i], values));
  });
  return in_blocks(codec) ? pack_all_blocks(codec, entries, scratch, values, pool) : failure.take();
}

Status write_whole(const Entries& entries, const Scratch& scratch, Codec codec, Bytes body, Pool* pool) {
  body[0] = static_cast<std::uint8_t>(BodyForm::kDense);
  const std::span<const Piece> pieces(scratch.pieces);
  const std::size_t numel = (body.size() - 1) / value_bytes(codec);
  // Nothing is missing, and no slot lies between.
  if (scratch.kept() == numel && numel > 0 && pieces.back().end() - pieces.front().slot == numel) {
    return pack_whole(codec, entries.values.subspan(pieces.front().slot, numel), body.subspan(1), pool);
  }
  return pack_scattered(codec, entries, pieces, body.subspan(1), pool);
}

}  // namespace

std::uint64_t frame_capacity(std::uint64_t entries, Codec codec, std::uint64_t numel, std::uint64_t segments,
                             std::uint64_t meta_bytes) {
  const std::uint64_t fixed = kHeaderBytes + meta_bytes;
  if (codec == Codec::kBytes) return fixed + entries;
  // With as many low bits as the span has, every gap costs those and one unary bit: no plan is larger.
  const auto index_bits = static_cast<std::uint64_t>(std::bit_width(numel)) + 1;
  const std::uint64_t streams = (entries * index_bits + 7) / 8;
  const std::uint64_t per_block = kMaxEntryBytes + 4;  // and what rounding to bytes adds
  const std::uint64_t indices = 11 + max_blocks(entries, segments) * per_block + streams;
  if (in_blocks(codec)) {
    const std::uint64_t blocks = segments + entries / kValueBlock;
    return fixed + indices + blocks * (table_bytes(codec) + 1) + code_bytes(codec, entries);
  }
  const std::uint64_t width = value_bytes(codec);
  return fixed + std::min(1 + numel * width, indices + entries * width);
}

Status encode_sparse(Header header, ConstBytes meta, const Entries& entries, std::uint64_t numel,
                     Scratch* scratch, Bytes out, std::size_t* length, Pool* pool) {
  if (header.codec == Codec::kBytes) {
    return fail(Code::kArgument, "codec", 0, "values need a codec other than 0, opaque bytes");
  }
  if (numel > kMaxNumel) return fail(Code::kArgument, "numel", numel, "must be at most 2^48");
  DGS_WIRE_TRY(gather(entries, header.codec, numel, scratch, pool));
  const std::uint64_t sparse = sparse_bytes(*scratch, header.codec);
  const std::uint64_t dense = 1 + numel * value_bytes(header.codec);
  const bool whole = dense < sparse && !in_blocks(header.codec);
  Bytes body;
  DGS_WIRE_TRY(claim_body(&header, meta, whole ? dense : sparse, out, &body));
  header.count = whole ? numel : scratch->kept();
  Status status = whole ? write_whole(entries, *scratch, header.codec, body, pool)
                        : write_sparse(entries, scratch, header.codec, body, pool);
  if (!status.ok()) {
    status.value = index_of(entries, scratch->pieces, status.value);
    status.detail += " (element " + std::to_string(status.value) + " of the vector)";
    return status;
  }
  *length = seal(header, out);
  return {};
}

Status encode_dense(Header header, ConstBytes meta, std::span<const float> values, Bytes out,
                    std::size_t* length, Pool* pool) {
  if (header.codec < Codec::kFloat32 || in_blocks(header.codec)) {
    return fail(Code::kArgument, "codec", static_cast<std::uint64_t>(header.codec),
                "a whole vector is sent as float32, float16 or bfloat16");
  }
  if (values.size() > kMaxNumel)
    return fail(Code::kArgument, "values", values.size(), "must be at most 2^48");
  Bytes body;
  DGS_WIRE_TRY(claim_body(&header, meta, 1 + values.size() * value_bytes(header.codec), out, &body));
  body[0] = static_cast<std::uint8_t>(BodyForm::kDense);
  DGS_WIRE_TRY(pack_whole(header.codec, values, body.subspan(1), pool));
  header.count = values.size();
  *length = seal(header, out);
  return {};
}

Status encode_bytes(Header header, ConstBytes meta, ConstBytes body, Bytes out, std::size_t* length) {
  if (header.codec != Codec::kBytes) {
    return fail(Code::kArgument, "codec", static_cast<std::uint64_t>(header.codec),
                "an opaque body needs codec 0");
  }
  Bytes place;
  DGS_WIRE_TRY(claim_body(&header, meta, body.size(), out, &place));
  if (!body.empty()) std::memcpy(place.data(), body.data(), body.size());
  header.count = body.size();
  *length = seal(header, out);
  return {};
}

}  // namespace dgs::wire
