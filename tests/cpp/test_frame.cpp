// SPDX-License-Identifier: Apache-2.0
// Whole frames: round trips, choice of form, and refusals by name. Damage has a file of its own.
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "frames.h"

namespace {

using namespace frames;

void round_trip(const Sample& sample, Codec codec, std::uint64_t numel) {
  std::vector<std::uint8_t> frame;
  CHECK(encode(sample, codec, numel, &frame).ok());
  const Received got =
      receive(frame, numel, std::max<std::size_t>(sample.indices.size(), numel < 100000 ? numel : 0));
  CHECK_EQ(std::string(code_name(got.status.code)), "ok");
  std::vector<std::int64_t> sent_indices;
  std::vector<float> sent_values;
  for (std::size_t s = 0; s < sample.nnz.size(); ++s) {
    for (std::int64_t i = sample.starts[s]; i < sample.starts[s] + sample.nnz[s]; ++i) {
      sent_indices.push_back(sample.indices[static_cast<std::size_t>(i)]);
      sent_values.push_back(sample.values[static_cast<std::size_t>(i)]);
    }
  }
  if (got.decoded.form == BodyForm::kSparse) {
    CHECK_EQ(got.decoded.header.count, sent_indices.size());
    CHECK(std::equal(sent_indices.begin(), sent_indices.end(), got.indices.begin()));
    CHECK(std::equal(sent_values.begin(), sent_values.end(), got.values.begin()));
    return;
  }
  std::vector<float> dense(numel, 0.0f);
  for (std::size_t i = 0; i < sent_indices.size(); ++i)
    dense[static_cast<std::size_t>(sent_indices[i])] = sent_values[i];
  CHECK_EQ(got.decoded.header.count, numel);
  CHECK(std::equal(dense.begin(), dense.end(), got.values.begin()));
}

TEST(sparse_round_trips) {
  std::mt19937_64 random(1);
  for (const Codec codec : {Codec::kFloat32, Codec::kFloat16, Codec::kBfloat16}) {
    for (const std::size_t count : {0, 1, 2, 63, 64, 65, 1000, 9000}) {
      Sample sample;
      sample.segment(random_indices(&random, count / 2, 0, 50000));
      sample.segment({}, 3);
      sample.segment(random_indices(&random, count - count / 2, 50000, 1000000), 5);
      round_trip(sample, codec, 1000000);
    }
  }
}

TEST(edges_of_the_vector) {
  for (const std::uint64_t numel :
       {std::uint64_t{2}, std::uint64_t{100}, std::uint64_t{1} << 40, kMaxNumel}) {
    Sample sample;
    sample.segment({0, static_cast<std::int64_t>(numel) - 1});
    round_trip(sample, Codec::kFloat32, numel);
  }
}

TEST(everything_of_many_segments) {
  Sample sample;
  for (std::int64_t s = 0; s < 100; ++s) {
    std::vector<std::int64_t> all(100);
    std::iota(all.begin(), all.end(), s * 100);
    sample.segment(all);
  }
  round_trip(sample, Codec::kFloat16, 10000);
  round_trip(sample, Codec::kFloat32, 1000000);
}

TEST(a_hundred_thousand_random) {
  std::mt19937_64 random(2);
  Sample sample;
  sample.segment(random_indices(&random, 100000, 0, 10000000));
  round_trip(sample, Codec::kFloat32, 10000000);
}

TEST(dense_when_smaller) {
  Sample sample;
  std::vector<std::int64_t> most;
  for (std::int64_t i = 0; i < 1000; ++i) {
    if (i % 50 != 7) most.push_back(i);
  }
  sample.segment(most);
  std::vector<std::uint8_t> frame;
  CHECK(encode(sample, Codec::kFloat16, 1000, &frame).ok());
  CHECK_EQ(frame.size(), kHeaderBytes + 2 + 1 + 2000);
  CHECK(receive(frame, 1000, 1000).decoded.form == BodyForm::kDense);
  round_trip(sample, Codec::kFloat16, 1000);
}

TEST(zeros_are_not_sent) {
  Sample sample;
  sample.segment({3, 10, 20, 30});
  sample.values[1] = 0.0f;
  sample.values[3] = -0.0f;
  std::vector<std::uint8_t> frame;
  CHECK(encode(sample, Codec::kFloat32, 1000, &frame).ok());
  const Received got = receive(frame, 1000, 4);
  CHECK(got.status.ok());
  CHECK_EQ(got.decoded.header.count, 2u);
  CHECK_EQ(got.indices[1], 20);
}

TEST(header_fields_travel) {
  Sample sample;
  sample.segment({3});
  std::vector<std::uint8_t> frame;
  CHECK(encode(sample, Codec::kFloat32, 1000, &frame).ok());
  const Received got = receive(frame, 1000, 1);
  CHECK_EQ(got.decoded.header.worker, 65535);
  CHECK_EQ(got.decoded.header.sequence, std::numeric_limits<std::uint64_t>::max());
  CHECK_EQ(got.decoded.header.version, 12u);
  CHECK_EQ(got.decoded.header.flags, kFlagDone);
  CHECK_EQ(got.decoded.meta.size(), std::size_t{2});
}

Status encode_status(const Sample& sample, Codec codec, std::uint64_t numel) {
  std::vector<std::uint8_t> frame;
  return encode(sample, codec, numel, &frame);
}

TEST(encoder_refuses_by_name) {
  Sample good;
  good.segment({3, 10, 20});
  CHECK(encode_status(good, Codec::kFloat32, 21).ok());
  CHECK(encode_status(good, Codec::kFloat32, 20).code == Code::kBadIndex);
  Sample bad = good;
  bad.indices[1] = 3;
  CHECK(encode_status(bad, Codec::kFloat32, 100).code == Code::kBadIndex);
  CHECK_EQ(encode_status(bad, Codec::kFloat32, 100).value, 1u);
  bad.indices[1] = -1;
  CHECK(encode_status(bad, Codec::kFloat32, 100).code == Code::kBadIndex);
  for (const float value : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    bad = good;
    bad.values[2] = value;
    CHECK(encode_status(bad, Codec::kFloat32, 100).code == Code::kBadValue);
    CHECK_EQ(encode_status(bad, Codec::kFloat32, 100).value, 20u);
  }
  bad = good;
  bad.values[0] = 1.0f + 0x1p-20f;
  CHECK(encode_status(bad, Codec::kFloat32, 100).ok());
  CHECK(encode_status(bad, Codec::kFloat16, 100).code == Code::kNotRepresentable);
  CHECK(encode_status(bad, Codec::kBfloat16, 4 << 20).code == Code::kNotRepresentable);
  CHECK(encode_status(good, Codec::kBytes, 100).code == Code::kArgument);
  CHECK(encode_status(good, Codec::kFloat32, kMaxNumel + 1).code == Code::kArgument);
  bad = good;
  bad.nnz[0] = 4;
  CHECK(encode_status(bad, Codec::kFloat32, 100).code == Code::kArgument);
  bad = good;
  bad.starts[1] = 4;
  CHECK(encode_status(bad, Codec::kFloat32, 100).code == Code::kArgument);
}

TEST(no_buffer_is_overrun) {
  Sample sample;
  sample.segment({3, 10, 20});
  std::vector<std::uint8_t> frame;
  CHECK(encode(sample, Codec::kFloat32, 1000, &frame).ok());
  Scratch scratch;
  std::size_t length = 0;
  for (std::size_t room = 0; room < frame.size(); ++room) {
    std::vector<std::uint8_t> small(room);
    const Status status = encode_sparse(header_with(Codec::kFloat32), {}, sample.entries(), 1000, &scratch,
                                        small, &length, &one_thread);
    CHECK(room < frame.size() - 2 ? status.code == Code::kCapacity : status.ok());
  }
  for (std::size_t room = 0; room < 3; ++room)
    CHECK(receive(frame, 1000, room).status.code == Code::kCapacity);
  CHECK(receive(frame, 1000, 3).status.ok());
}

TEST(capacity_always_suffices) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 300; ++trial) {
    const auto numel = static_cast<std::int64_t>(std::uint64_t{4096} << (trial % 30));
    Sample sample;
    for (std::int64_t s = 0; s < 1 + trial % 7; ++s) {
      const std::int64_t width = numel / (1 + trial % 7), begin = s * width;
      sample.segment(
          random_indices(&random, random() % static_cast<std::uint64_t>(std::min<std::int64_t>(width, 3000)),
                         begin, begin + width));
    }
    std::vector<std::uint8_t> frame;
    CHECK(encode(sample, trial % 2 == 0 ? Codec::kFloat32 : Codec::kFloat16,
                 static_cast<std::uint64_t>(numel), &frame)
              .ok());
  }
}

TEST(other_layout_is_named) {
  Sample sample;
  sample.segment({3});
  std::vector<std::uint8_t> frame;
  CHECK(encode(sample, Codec::kFloat32, 1000, &frame).ok());
  std::vector<std::int64_t> indices(1);
  std::vector<float> values(1);
  Decoded decoded;
  CHECK(decode(frame, 1000, kFingerprint + 1, indices, values, &decoded, &one_thread).code ==
        Code::kLayoutMismatch);
  CHECK(decode(frame, 1000, std::nullopt, indices, values, &decoded, &one_thread).ok());
}

}  // namespace
