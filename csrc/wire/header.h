// SPDX-License-Identifier: Apache-2.0
// The fixed header of a frame; docs/wire_format.md is the normative description.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wire/bytes.h"
#include "wire/status.h"

namespace dgs::wire {

inline constexpr std::size_t kHeaderBytes = 64;
inline constexpr std::uint8_t kVersion = 1;
inline constexpr std::uint8_t kFlagDone = 1;
inline constexpr std::uint8_t kFirstKind = 1;
inline constexpr std::uint8_t kLastKind = 7;

enum class Codec : std::uint8_t {
  kBytes = 0,
  kFloat32 = 1,
  kFloat16 = 2,
  kBfloat16 = 3,
  // Codes of a few bits, and one scale for the values of a block (block_values.h).
  kInt8 = 4,
  kLevel4 = 5,
  kLevel3 = 6,
  kLevel2 = 7,
  kSign = 8,
};

struct Header {
  std::uint8_t kind = 0;
  std::uint8_t flags = 0;
  Codec codec = Codec::kBytes;
  std::uint16_t worker = 0;
  std::uint16_t meta_length = 0;
  std::uint64_t fingerprint = 0;
  std::uint64_t sequence = 0;
  std::uint64_t version = 0;  // of the model
  std::uint64_t count = 0;
  std::uint64_t payload_length = 0;
  std::uint64_t checksum = 0;
};

void write_header(const Header& header, std::uint8_t* to);  // to: [64]

// Reads the first 64 bytes of `frame`. No field is believed before the header's own check has passed.
Status read_header(ConstBytes frame, Header* header);

}  // namespace dgs::wire
