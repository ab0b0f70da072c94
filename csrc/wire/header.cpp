// SPDX-License-Identifier: Apache-2.0
#include "wire/header.h"

#include <array>
#include <cstring>
#include <string>

#include "wire/xxh64.h"

namespace dgs::wire {
namespace {

constexpr std::array<std::uint8_t, 4> kMagic = {'D', 'G', 'S', 'F'};
constexpr std::size_t kCheckOffset = 12;

std::uint32_t check_of(const std::uint8_t* header) {
  std::array<std::uint8_t, kHeaderBytes> copy;
  std::memcpy(copy.data(), header, kHeaderBytes);
  store_le<std::uint32_t>(copy.data() + kCheckOffset, 0);
  return static_cast<std::uint32_t>(xxh64(copy));
}

Status check_preamble(ConstBytes frame) {
  if (frame.size() < kHeaderBytes) {
    return fail(Code::kTruncated, "header", frame.size(), "a frame has at least 64 bytes");
  }
  if (std::memcmp(frame.data(), kMagic.data(), kMagic.size()) != 0) {
    return fail(Code::kBadMagic, "magic", load_le<std::uint32_t>(frame.data()),
                "a frame begins with the bytes DGSF; the peer does not speak this protocol");
  }
  if (frame[4] != kVersion) {
    return fail(Code::kUnknownVersion, "version", frame[4],
                "frame version " + std::to_string(frame[4]) + ", this build reads " +
                    std::to_string(kVersion) + "; run the same release on both sides");
  }
  const auto check = load_le<std::uint32_t>(frame.data() + kCheckOffset);
  if (check != check_of(frame.data())) {
    return fail(Code::kHeaderCheck, "header_check", check, "the header was altered on its way");
  }
  return {};
}

Status check_fields(const Header& header) {
  if (header.kind < kFirstKind || header.kind > kLastKind) {
    return fail(Code::kBadKind, "kind", header.kind, "kinds are 1 to 7");
  }
  if ((header.flags & ~kFlagDone) != 0) {
    return fail(Code::kBadFlags, "flags", header.flags, "all bits but bit 0 must be 0");
  }
  if (header.codec > Codec::kSign) {
    return fail(Code::kBadCodec, "codec", static_cast<std::uint64_t>(header.codec), "codecs are 0 to 8");
  }
  if (header.meta_length > header.payload_length) {
    return fail(Code::kBadLength, "meta_length", header.meta_length,
                "must not exceed the payload length " + std::to_string(header.payload_length));
  }
  if (header.codec == Codec::kBytes && header.count != header.payload_length - header.meta_length) {
    return fail(Code::kBadCount, "count", header.count,
                "must be the length of an opaque body, " +
                    std::to_string(header.payload_length - header.meta_length));
  }
  return {};
}

}  // namespace

void write_header(const Header& header, std::uint8_t* to) {
  std::memcpy(to, kMagic.data(), kMagic.size());
  to[4] = kVersion;
  to[5] = header.kind;
  to[6] = header.flags;
  to[7] = static_cast<std::uint8_t>(header.codec);
  store_le(to + 8, header.worker);
  store_le(to + 10, header.meta_length);
  store_le(to + 16, header.fingerprint);
  store_le(to + 24, header.sequence);
  store_le(to + 32, header.version);
  store_le(to + 40, header.count);
  store_le(to + 48, header.payload_length);
  store_le(to + 56, header.checksum);
  store_le(to + kCheckOffset, check_of(to));
}

Status read_header(ConstBytes frame, Header* header) {
  DGS_WIRE_TRY(check_preamble(frame));
  const std::uint8_t* from = frame.data();
  header->kind = from[5];
  header->flags = from[6];
  header->codec = static_cast<Codec>(from[7]);
  header->worker = load_le<std::uint16_t>(from + 8);
  header->meta_length = load_le<std::uint16_t>(from + 10);
  header->fingerprint = load_le<std::uint64_t>(from + 16);
  header->sequence = load_le<std::uint64_t>(from + 24);
  header->version = load_le<std::uint64_t>(from + 32);
  header->count = load_le<std::uint64_t>(from + 40);
  header->payload_length = load_le<std::uint64_t>(from + 48);
  header->checksum = load_le<std::uint64_t>(from + 56);
  return check_fields(*header);
}

}  // namespace dgs::wire
