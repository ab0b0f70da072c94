// SPDX-License-Identifier: Apache-2.0
// Which bytes the packer makes of entries: the cut into blocks is its own choice, and this holds it to the
// one that it has made since version 1, over selections with unused slots, zeros, runs, and segments of all
// sizes.
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "frames.h"
#include "wire/block_values.h"
#include "wire/frame.h"
#include "wire/xxh64.h"

namespace {

using namespace dgs::wire;

// What a segment's entries are like.
struct Kind {
  std::size_t slots;    // about so many entries
  std::uint64_t apart;  // indices between them, on average
  std::uint64_t run;    // 1 in so many of them begins a run; 0: none does
  std::uint64_t zeros;  // of 100
};

constexpr Kind kKinds[] = {
    {60'000, 100, 0, 0},    {60'000, 100, 0, 3}, {30'000, 40, 500, 0}, {30'000, 40, 500, 10},
    {300, 1, 0, 0},         {20'000, 1, 0, 0},   {20'000, 1, 0, 50},   {20'000, 2, 7, 90},
    {1, 1000, 0, 0},        {1, 1000, 0, 50},    {2'000, 300, 0, 100}, {0, 1, 0, 0},
    {64, 1, 0, 0},          {64, 1, 0, 20},      {16'384, 3, 0, 0},    {16'385, 3, 0, 1},
    {513, 1'000'000, 3, 0},
};

struct Message {
  Codec codec;
  std::vector<std::int64_t> indices = {}, starts = {0}, nnz = {};
  std::vector<float> values = {};
  std::int64_t numel = 0;

  void segment(const Kind& kind, std::size_t unused, std::mt19937_64* random) {
    std::int64_t nnz_here = 0;
    const auto add = [&] {
      const std::uint64_t draw = (*random)();
      const float value = draw % 100 < kind.zeros ? 0.0f : frames::magnitude(codec, draw >> 20);
      indices.push_back(numel++);
      values.push_back(draw >> 10 & 1 ? -value : value);
      ++nnz_here;
    };
    while (nnz_here < static_cast<std::int64_t>(kind.slots)) {
      numel += static_cast<std::int64_t>((*random)() % (2 * kind.apart - 1));
      std::uint64_t run = kind.run > 0 && (*random)() % kind.run == 0 ? (*random)() % 900 : 1;
      for (; run > 0; --run) add();
    }
    indices.insert(indices.end(), unused, -1);  // what is not read may be anything
    values.insert(values.end(), unused, std::numeric_limits<float>::quiet_NaN());
    nnz.push_back(nnz_here);
    starts.push_back(static_cast<std::int64_t>(indices.size()));
  }
  Entries entries() const { return {indices, values, starts, nnz}; }
};

// Fifty segments of any kinds; `most` unused slots behind each.
Message any(Codec codec, std::uint64_t seed, std::size_t most) {
  Message message{codec};
  std::mt19937_64 random(seed), gaps(seed + 1);
  for (int s = 0; s < 50; ++s) {
    const Kind kind = kKinds[random() % std::size(kKinds)];
    message.segment(kind, most == 0 ? 0 : gaps() % most, &random);
  }
  return message;
}

// All of a vector or nearly so, which some codecs send whole.
Message nearly_all(Codec codec, std::uint64_t zeros, std::size_t unused) {
  Message message{codec};
  std::mt19937_64 random(zeros);
  for (const std::size_t slots : {100u, 30'000u, 1u, 20'000u})
    message.segment({slots, 1, 0, zeros}, unused, &random);
  return message;
}

std::vector<std::uint8_t> frame_of(const Message& message) {
  Alone alone;
  Scratch scratch;
  Header header;
  header.kind = 1;
  header.codec = message.codec;
  const auto numel = static_cast<std::uint64_t>(message.numel);
  std::vector<std::uint8_t> frame(
      frame_capacity(message.indices.size(), message.codec, numel, message.nnz.size(), 0));
  std::size_t length = 0;
  CHECK(encode_sparse(header, {}, message.entries(), numel, &scratch, frame, &length, &alone).ok());
  frame.resize(length);
  return frame;
}

struct Pinned {
  Codec codec;
  std::uint64_t hash;  // of the hashes of all frames
};

constexpr Pinned kPinned[] = {
    {Codec::kFloat32, 0xa4c41a59d9c16353},  {Codec::kFloat16, 0x3c84b100f995aa7d},
    {Codec::kBfloat16, 0x18b636bfa89bd1de}, {Codec::kInt8, 0xd24fe474bf3e29f4},
    {Codec::kLevel4, 0x2384ed01b781cc59},   {Codec::kLevel3, 0xf0cf3b8d8f37a626},
    {Codec::kLevel2, 0xff002c07914e3992},   {Codec::kSign, 0x4a0149098946f876},
};

TEST(the_bytes_stay_what_they_are) {
  for (const auto& [codec, expected] : kPinned) {
    std::vector<std::uint64_t> hashes;
    const auto add = [&](const Message& message) { hashes.push_back(xxh64(frame_of(message))); };
    for (std::uint64_t seed = 0; seed < 4; ++seed) add(any(codec, seed, 5));
    for (const std::uint64_t zeros : {0, 2, 100}) {
      for (const std::size_t unused : {0, 3}) add(nearly_all(codec, zeros, unused));
    }
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(hashes.data());
    CHECK_EQ(xxh64({bytes, 8 * hashes.size()}), expected);
  }
}

TEST(unused_slots_change_nothing) {
  for (const auto& pinned : kPinned) {
    CHECK(frame_of(any(pinned.codec, 9, 0)) == frame_of(any(pinned.codec, 9, 700)));
    CHECK(frame_of(nearly_all(pinned.codec, 2, 0)) == frame_of(nearly_all(pinned.codec, 2, 40)));
  }
}

}  // namespace
