// SPDX-License-Identifier: Apache-2.0
// Whole frames: round trips, choice of form, refusals by name, and damage that the decoder must survive.
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "check.h"
#include "wire/frame.h"
#include "wire/value_codec.h"
#include "wire/xxh64.h"

namespace {

using namespace dgs::wire;

constexpr std::uint64_t kFingerprint = 0x1122334455667788u;

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

Header header_with(Codec codec) {
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

Alone one_thread;

Status encode(const Sample& sample, Codec codec, std::uint64_t numel, std::vector<std::uint8_t>* frame,
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

Received receive(ConstBytes frame, std::uint64_t numel, std::size_t room, Pool* pool = &one_thread) {
  Received received{.status = {},
                    .decoded = {},
                    .indices = std::vector<std::int64_t>(room),
                    .values = std::vector<float>(room)};
  received.status =
      decode(frame, numel, kFingerprint, received.indices, received.values, &received.decoded, pool);
  return received;
}

void reseal(std::vector<std::uint8_t>* frame) {
  Header header;
  if (!read_header(*frame, &header).ok()) return;
  header.payload_length = frame->size() - kHeaderBytes;
  header.checksum = xxh64(ConstBytes(*frame).subspan(kHeaderBytes));
  write_header(header, frame->data());
}

std::vector<std::int64_t> random_indices(std::mt19937_64* random, std::size_t count, std::int64_t begin,
                                         std::int64_t end) {
  std::set<std::int64_t> chosen;
  std::uniform_int_distribution<std::int64_t> any(begin, end - 1);
  while (chosen.size() < count) chosen.insert(any(*random));
  return {chosen.begin(), chosen.end()};
}

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

TEST(truncation_at_every_byte) {
  std::mt19937_64 random(4);
  Sample sample;
  sample.segment(random_indices(&random, 50, 0, 3000));
  sample.segment({3000, 3001, 3002});
  std::vector<std::uint8_t> frame;
  CHECK(encode(sample, Codec::kFloat32, 5000, &frame).ok());
  for (std::size_t length = 0; length < frame.size(); ++length) {
    std::vector<std::uint8_t> cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK(receive(cut, 5000, 100).status.code == Code::kTruncated);
    if (length < kHeaderBytes + 2) continue;
    reseal(&cut);  // and a liar whose header agrees with what is left
    CHECK(!receive(cut, 5000, 100).status.ok());
  }
  frame.push_back(0);
  CHECK(receive(frame, 5000, 100).status.code == Code::kTrailing);
  reseal(&frame);
  CHECK(receive(frame, 5000, 100).status.code == Code::kTrailing);
}

TEST(every_header_bit) {
  Sample sample;
  sample.segment({3, 10, 20});
  std::vector<std::uint8_t> frame;
  CHECK(encode(sample, Codec::kFloat32, 1000, &frame).ok());
  for (std::size_t bit = 0; bit < kHeaderBytes * 8; ++bit) {
    frame[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    const Code code = receive(frame, 1000, 3).status.code;
    CHECK(code == (bit < 32 ? Code::kBadMagic : bit < 40 ? Code::kUnknownVersion : Code::kHeaderCheck));
    frame[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
  }
}

// What survives a damaged payload whose checksums agree must still be something that a sender could mean.
void expect_sane(const Received& got, std::uint64_t numel) {
  if (!got.status.ok() || got.decoded.form == BodyForm::kOpaque) return;
  const bool sparse = got.decoded.form == BodyForm::kSparse;
  for (std::uint64_t i = 0; i < got.decoded.header.count; ++i) {
    CHECK(std::isfinite(got.values[i]));
    if (!sparse) continue;
    CHECK(got.values[i] != 0.0f);
    CHECK(got.indices[i] >= 0 && static_cast<std::uint64_t>(got.indices[i]) < numel);
    CHECK(i == 0 || got.indices[i] > got.indices[i - 1]);
  }
}

TEST(mutants_with_true_checksums) {
  std::mt19937_64 random(5);
  Sample sample;
  sample.segment(random_indices(&random, 60, 0, 500));
  sample.segment(random_indices(&random, 60, 500, 90000), 2);
  for (const Codec codec : {Codec::kFloat32, Codec::kFloat16}) {
    std::vector<std::uint8_t> frame;
    CHECK(encode(sample, codec, 90000, &frame).ok());
    for (int trial = 0; trial < 40000; ++trial) {
      std::vector<std::uint8_t> mutant = frame;
      const std::size_t reach =
          trial % 2 == 0 ? 24 : mutant.size() - kHeaderBytes;  // half of them hit the directory
      for (std::uint64_t hits = 1 + random() % 3; hits > 0; --hits) {
        mutant[kHeaderBytes + random() % reach] = static_cast<std::uint8_t>(random());
      }
      if (random() % 4 == 0) mutant.resize(kHeaderBytes + 2 + random() % (mutant.size() - kHeaderBytes - 2));
      reseal(&mutant);
      expect_sane(receive(mutant, 90000, 200), 90000);
    }
  }
}

TEST(mutants_of_a_header_with_true_checks) {
  std::mt19937_64 random(6);
  Sample sample;
  sample.segment(random_indices(&random, 60, 0, 500));
  std::vector<std::uint8_t> frame;
  CHECK(encode(sample, Codec::kFloat32, 5000, &frame).ok());
  Header header;
  CHECK(read_header(frame, &header).ok());
  const std::uint64_t odd[] = {
      0, 1, 59, 61, 4999, 5000, 5001, std::uint64_t{1} << 62, std::numeric_limits<std::uint64_t>::max()};
  for (const std::uint64_t count : odd) {
    for (const std::uint64_t length : odd) {
      for (std::uint8_t codec = 0; codec < 6; ++codec) {
        Header liar = header;
        liar.count = count;
        liar.payload_length = random() % 2 == 0 ? length : header.payload_length;
        liar.meta_length = static_cast<std::uint16_t>(random() % 2 == 0 ? length : 2);
        liar.codec = static_cast<Codec>(codec);
        write_header(liar, frame.data());
        const Received got = receive(frame, 5000, 200);
        expect_sane(got, 5000);
        CHECK(!got.status.ok() || codec == 0);
      }
    }
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
