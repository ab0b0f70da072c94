// SPDX-License-Identifier: Apache-2.0
// What the tests of whole frames share: entries as a selection leaves them, sent and received in one call.
#pragma once

#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "wire/frame.h"

namespace frames {

using namespace dgs::wire;

inline constexpr std::uint64_t kFingerprint = 0x1122334455667788u;

// A magnitude that may stand beside any other of its codec, in a block with one scale too.
inline float magnitude(Codec codec, std::uint64_t draw) {
  switch (codec) {
    case Codec::kFloat32:
      return static_cast<float>(draw % 4001) + 0.5f;
    case Codec::kFloat16:
    case Codec::kBfloat16:
    case Codec::kInt8:
      return static_cast<float>(64 + draw % 64);
    case Codec::kLevel4:
      return 8.0f / static_cast<float>(1u << draw % 4);
    case Codec::kLevel3:
      return 2.0f / static_cast<float>(1u << draw % 2);
    default:
      return 1.0f;
  }
}

// A flat vector's entries as the selection ops leave them: some slots of each segment unused.
struct Sample {
  std::vector<std::int64_t> indices, starts = {0}, nnz;
  std::vector<float> values;

  void segment(const std::vector<std::int64_t>& chosen, std::size_t unused = 0) {
    for (const std::int64_t index : chosen) {
      indices.push_back(index);
      values.push_back(index % 3 == 0 ? -0.5f : static_cast<float>(1 + index % 64));
    }
    indices.insert(indices.end(), unused, -1);  // garbage that must not be read
    values.insert(values.end(), unused, std::numeric_limits<float>::quiet_NaN());
    starts.push_back(static_cast<std::int64_t>(indices.size()));
    nnz.push_back(static_cast<std::int64_t>(chosen.size()));
  }
  Entries entries() const { return {indices, values, starts, nnz}; }
};

struct Received {
  Status status;
  Decoded decoded;
  std::vector<std::int64_t> indices;
  std::vector<float> values;
};

inline Header header_with(Codec codec) {
  Header header;
  header.kind = 1;
  header.codec = codec;
  header.worker = 65535;
  header.fingerprint = kFingerprint;
  header.sequence = std::numeric_limits<std::uint64_t>::max();
  header.version = 12;
  header.flags = kFlagDone;
  return header;
}

inline Alone one_thread;

inline Status encode(const Sample& sample, Codec codec, std::uint64_t numel, std::vector<std::uint8_t>* frame,
                     Pool* pool = &one_thread) {
  static const std::vector<std::uint8_t> meta = {'{', '}'};
  Scratch scratch;
  frame->assign(frame_capacity(sample.indices.size(), codec, numel, sample.nnz.size(), meta.size()), 0xcd);
  std::size_t length = 0;
  Status status =
      encode_sparse(header_with(codec), meta, sample.entries(), numel, &scratch, *frame, &length, pool);
  frame->resize(length);
  return status;
}

inline Received receive(ConstBytes frame, std::uint64_t numel, std::size_t room, Pool* pool = &one_thread) {
  Received received{.status = {},
                    .decoded = {},
                    .indices = std::vector<std::int64_t>(room),
                    .values = std::vector<float>(room)};
  received.status =
      decode(frame, numel, kFingerprint, received.indices, received.values, &received.decoded, pool);
  return received;
}

inline std::vector<std::int64_t> random_indices(std::mt19937_64* random, std::size_t count,
                                                std::int64_t begin, std::int64_t end) {
  std::set<std::int64_t> chosen;
  std::uniform_int_distribution<std::int64_t> any(begin, end - 1);
  while (chosen.size() < count) chosen.insert(any(*random));
  return {chosen.begin(), chosen.end()};
}

}  // namespace frames
