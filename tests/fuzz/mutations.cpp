// SPDX-License-Identifier: Apache-2.0
// Deterministic mutations of frames that the packer wrote:  mutations [count] [seed]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "receiver.h"
#include "wire/block_values.h"
#include "wire/frame.h"

namespace {

using namespace dgs::wire;
using Frame = std::vector<std::uint8_t>;
using Random = std::mt19937_64;

constexpr std::uint64_t kNumel = 70'000;
constexpr Codec kCodecs[] = {Codec::kFloat32, Codec::kFloat16, Codec::kBfloat16, Codec::kInt8,
                             Codec::kLevel4,  Codec::kLevel3,  Codec::kLevel2,   Codec::kSign};

Header header_of(Codec codec) {
  Header header;
  header.kind = 1;
  header.codec = codec;
  return header;
}

std::vector<std::int64_t> chosen(Random* random, std::size_t count, std::int64_t begin, std::int64_t end) {
  std::set<std::int64_t> indices;
  while (indices.size() < count) {
    indices.insert(begin + static_cast<std::int64_t>((*random)() % static_cast<std::uint64_t>(end - begin)));
  }
  return {indices.begin(), indices.end()};
}

struct Chosen {
  std::vector<std::int64_t> indices, starts = {0}, nnz;

  void segment(const std::vector<std::int64_t>& more) {
    indices.insert(indices.end(), more.begin(), more.end());
    nnz.push_back(static_cast<std::int64_t>(more.size()));
    starts.push_back(static_cast<std::int64_t>(indices.size()));
  }
};

std::vector<std::int64_t> run(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(end - begin));
  std::iota(indices.begin(), indices.end(), begin);
  return indices;
}

// Random entries and a run.
Chosen few(std::size_t count, Random* random) {
  Chosen entries;
  entries.segment(chosen(random, count, 0, 60'000));
  entries.segment(run(60'000, 60'300));
  return entries;
}

// Several tasks' entries: runs, which cost a frame little, and random ones between them.
Chosen many(Random* random) {
  Chosen entries;
  for (std::int64_t begin = 0; begin < 69'000; begin += 23'000) {
    entries.segment(run(begin, begin + 17'000));
    entries.segment(chosen(random, 300, begin + 17'000, begin + 23'000));
  }
  return entries;
}

// With values that every codec holds.
Frame sparse(Codec codec, const Chosen& entries) {
  const auto& [indices, starts, nnz] = entries;
  std::vector<float> values;
  for (std::size_t i = 0; i < indices.size(); ++i) values.push_back(i % 3 == 0 ? -0.5f : 0.5f);
  Frame frame(frame_capacity(indices.size(), codec, kNumel, nnz.size(), 2));
  Scratch scratch;
  Alone alone;
  std::size_t length = 0;
  const std::uint8_t meta[] = {'{', '}'};
  const Status status = encode_sparse(header_of(codec), meta, {indices, values, starts, nnz}, kNumel,
                                      &scratch, frame, &length, &alone);
  if (!status.ok()) std::abort();
  frame.resize(length);
  return frame;
}

Frame dense(Codec codec, std::size_t numel) {
  const std::vector<float> values(numel, 0.25f);
  Frame frame(frame_capacity(values.size(), codec, values.size(), 1, 0));
  Alone alone;
  std::size_t length = 0;
  if (!encode_dense(header_of(codec), {}, values, frame, &length, &alone).ok()) std::abort();
  frame.resize(length);
  return frame;
}

struct Seeds {
  std::vector<Frame> small, large;

  explicit Seeds(Random* random) {
    for (const Codec codec : kCodecs) {
      for (const std::size_t count : {1, 3, 100, 600}) small.push_back(sparse(codec, few(count, random)));
      large.push_back(sparse(codec, many(random)));
      if (in_blocks(codec)) continue;
      small.push_back(dense(codec, 1000));
      large.push_back(dense(codec, kNumel));
    }
  }
  bool sound() const {
    const auto accepted = [](const Frame& frame) {
      return fuzz::receive(frame, kNumel) || fuzz::receive(frame, 1000);
    };
    const auto in_tasks = [&](const Frame& frame) { return accepted(frame) && fuzz::tasks() > 1; };
    return std::ranges::all_of(small, accepted) && std::ranges::all_of(large, in_tasks);
  }
};

// Mostly near the front, where header and directory are; and mostly bytes that mean something in a varint.
void damage(Frame* frame, Random* random) {
  Random& draw = *random;
  const std::size_t from = std::min<std::size_t>(draw() % 4 == 0 ? 5 : kHeaderBytes, frame->size() - 1);
  const std::size_t reach =
      draw() % 2 == 0 ? std::min<std::size_t>(40, frame->size() - from) : frame->size() - from;
  const std::size_t at = from + draw() % reach;
  constexpr std::uint8_t kOdd[] = {0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff};
  const auto place = frame->begin() + static_cast<std::ptrdiff_t>(at);
  switch (draw() % 6) {
    case 0:
      *place = static_cast<std::uint8_t>(draw());
      break;
    case 1:
      *place = kOdd[draw() % std::size(kOdd)];
      break;
    case 2:
      *place ^= static_cast<std::uint8_t>(1u << draw() % 8);
      break;
    case 3:
      frame->insert(place, kOdd[draw() % std::size(kOdd)]);
      break;
    case 4:
      if (frame->size() > 1) frame->erase(place);
      break;
    default:
      *place = static_cast<std::uint8_t>(*place + (draw() % 2 == 0 ? 1 : 255));
  }
  if (draw() % 16 == 0) frame->resize(1 + draw() % frame->size());
}

// Whether it is still a valid frame. A large one costs as much as a hundred small ones.
bool survives(const Seeds& seeds, Random* random) {
  Random& draw = *random;
  const bool large = draw() % 24 == 0;
  const std::vector<Frame>& originals = large ? seeds.large : seeds.small;
  Frame frame = originals[draw() % originals.size()];
  for (std::uint64_t hits = 1 + draw() % (large ? 8 : 3); hits > 0; --hits) damage(&frame, random);
  if (draw() % 64 != 0) fuzz::reseal(frame);
  return fuzz::receive(frame, draw() % 8 == 0 ? 1000 : kNumel);
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000;
  Random random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const Seeds seeds(&random);
  if (!seeds.sound()) {
    std::fprintf(stderr, "a seed is refused, or a large one is not decoded in several tasks\n");
    return 1;
  }
  std::uint64_t accepted = 0;
  for (std::uint64_t i = 0; i < count; ++i) accepted += survives(seeds, &random) ? 1 : 0;
  std::printf("%llu mutated frames, %llu of them valid frames\n", static_cast<unsigned long long>(count),
              static_cast<unsigned long long>(accepted));
  // A share of both says that the mutations neither miss nor are all caught at the gate.
  return accepted > count / 100 && accepted < count ? 0 : 1;
}
