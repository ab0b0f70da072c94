// SPDX-License-Identifier: Apache-2.0
// Threads change nothing: the same bytes, the same entries, the same error. Runs under the thread sanitizer
// too.
#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "frames.h"
#include "threads.h"
#include "wire/block_values.h"
#include "wire/frame.h"
#include "wire/xxh64.h"

namespace {

using namespace dgs::wire;

// Any order is allowed, the last task first too.
class Backwards final : public Pool {
 public:
  void each(std::size_t tasks, Task task) override {
    for (std::size_t i = tasks; i > 0; --i) task(i - 1);
  }
};

// Under the thread sanitizer, which makes all of this twenty times slower, one codec of each kind.
#ifdef __SANITIZE_THREAD__
constexpr Codec kCodecs[] = {Codec::kFloat32, Codec::kInt8};
#else
constexpr Codec kCodecs[] = {Codec::kFloat32, Codec::kFloat16, Codec::kBfloat16, Codec::kInt8,
                             Codec::kLevel4,  Codec::kLevel3,  Codec::kLevel2,   Codec::kSign};
#endif

struct Message {
  Codec codec;
  std::uint64_t numel;
  std::vector<std::int64_t> indices = {}, starts = {0}, nnz = {};
  std::vector<float> values = {};

  void end_segment() {
    nnz.push_back(static_cast<std::int64_t>(indices.size()) - starts.back());
    starts.push_back(static_cast<std::int64_t>(indices.size()));
  }
  void add(std::int64_t index, std::uint64_t bits) {
    indices.push_back(index);
    const float value = frames::magnitude(codec, bits / 100);
    values.push_back(bits % 50 == 0 ? 0.0f : bits % 2 == 0 ? value : -value);
  }
  Entries entries() const { return {indices, values, starts, nnz}; }
};

// One large segment with runs, zeros and random entries; two of no entries; one sent whole; one again random.
Message mixed(Codec codec) {
  Message message{codec, 12'000'000};
  std::mt19937_64 random(1);
  std::int64_t at = 0;
  for (const std::int64_t end : {9'000'000, 9'000'000, 9'100'000, 9'120'000, 9'120'000, 12'000'000}) {
    while (at < end) {
      const bool whole = end == 9'120'000 || random() % 1000 == 0;
      std::int64_t run = whole ? static_cast<std::int64_t>(1 + random() % 700) : 1;
      for (; run > 0 && at < end; --run) message.add(at++, random());
      if (end != 9'120'000) at += static_cast<std::int64_t>(random() % 150);
    }
    at = end;
    message.end_segment();
  }
  return message;
}

// All of a vector, of which one in fifty is zero, or none: odd bits give no zero.
Message entire(Codec codec, bool zeros) {
  Message message{codec, 200'000};
  std::mt19937_64 random(4);
  for (std::int64_t i = 0; i < 200'000; ++i) message.add(i, random() | (zeros ? 0 : 1));
  message.end_segment();
  return message;
}

Header header(Codec codec) {
  Header it;
  it.kind = 1;
  it.codec = codec;
  return it;
}

struct Sent {
  Status status;
  std::vector<std::uint8_t> frame;
};

Sent encode(const Message& message, Pool* pool) {
  Sent sent;
  Scratch scratch;
  sent.frame.resize(
      frame_capacity(message.indices.size(), message.codec, message.numel, message.nnz.size(), 0));
  std::size_t length = 0;
  sent.status = encode_sparse(header(message.codec), {}, message.entries(), message.numel, &scratch,
                              sent.frame, &length, pool);
  sent.frame.resize(length);
  return sent;
}

struct Received {
  Status status;
  Decoded decoded;
  std::vector<std::int64_t> indices;
  std::vector<float> values;
};

Received receive(ConstBytes frame, const Message& message, Pool* pool) {
  const std::size_t room = std::min<std::size_t>(message.numel, message.indices.size() + 100);
  Received got{.status = {},
               .decoded = {},
               .indices = std::vector<std::int64_t>(room, -7),
               .values = std::vector<float>(room, -7)};
  got.status = decode(frame, message.numel, std::nullopt, got.indices, got.values, &got.decoded, pool);
  return got;
}

void same(const Status& a, const Status& b) {
  CHECK(a.code == b.code);
  CHECK_EQ(std::string(a.field), std::string(b.field));
  CHECK_EQ(a.value, b.value);
  CHECK_EQ(a.detail, b.detail);
}

void for_each_pool(const auto& visit) {
  Backwards backwards;
  visit(&backwards);
  for (const int threads : {2, 3, 7}) {
    dgs::test::WireThreads some(threads);
    visit(&some);
  }
}

void expect_no_dependence_on_threads(const Message& message) {
  Alone alone;
  const Sent expected = encode(message, &alone);
  CHECK(expected.status.ok());
  const Received decoded = receive(expected.frame, message, &alone);
  CHECK(decoded.status.ok());
  CHECK(decoded.decoded.form == BodyForm::kSparse);
  for_each_pool([&](Pool* pool) {
    const Sent sent = encode(message, pool);
    CHECK(sent.status.ok());
    CHECK(sent.frame == expected.frame);
    const Received got = receive(sent.frame, message, pool);
    CHECK(got.status.ok());
    CHECK(got.indices == decoded.indices);
    CHECK(got.values == decoded.values);
  });
  std::size_t at = 0;
  for (std::size_t i = 0; i < message.indices.size(); ++i) {
    if (message.values[i] == 0) continue;
    CHECK(decoded.indices[at] == message.indices[i] && decoded.values[at] == message.values[i]);
    ++at;
  }
  CHECK_EQ(decoded.decoded.header.count, at);
}

TEST(bytes_and_entries_do_not_depend_on_threads) {
  for (const Codec codec : kCodecs) expect_no_dependence_on_threads(mixed(codec));
}

void expect_the_first_error(Message message) {
  Alone alone;
  std::mt19937_64 random(2);
  for (int i = 0; i < 40; ++i)
    message.values[random() % message.values.size()] = std::numeric_limits<float>::infinity();
  const Sent by_value = encode(message, &alone);
  CHECK(by_value.status.code == Code::kBadValue);
  for_each_pool([&](Pool* pool) { same(encode(message, pool).status, by_value.status); });
  for (int i = 0; i < 40; ++i) message.indices[random() % message.indices.size()] = -1;
  const Sent by_index = encode(message, &alone);
  CHECK(by_index.status.code == Code::kBadIndex);
  for_each_pool([&](Pool* pool) { same(encode(message, pool).status, by_index.status); });
}

TEST(of_many_errors_the_first_is_told) {
  for (const Codec codec : kCodecs) expect_the_first_error(mixed(codec));
}

void expect_the_first_fault(const Message& message) {
  Alone alone;
  const Sent sent = encode(message, &alone);
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 6; ++trial) {
    std::vector<std::uint8_t> frame = sent.frame;
    Header lies;
    CHECK(read_header(frame, &lies).ok());
    // Behind the directory: in the streams, or in the values alone, of which levels and signs know no wrong.
    const std::size_t from = frame.size() / (trial % 2 == 0 || message.codec > Codec::kInt8 ? 20 : 2);
    const std::uint8_t wrong = message.codec == Codec::kInt8 ? 0x80 : 0xff;  // as a code, or in a float
    for (int i = 0; i < 50; ++i) frame[from + random() % (frame.size() - from - 8)] = wrong;
    std::fill(frame.end() - 8, frame.end(), wrong);
    lies.checksum = xxh64(ConstBytes(frame).subspan(kHeaderBytes));
    write_header(lies, frame.data());
    const Received expected = receive(frame, message, &alone);
    CHECK(!expected.status.ok());
    for_each_pool([&](Pool* pool) { same(receive(frame, message, pool).status, expected.status); });
  }
}

TEST(of_many_faults_of_a_frame_the_first_is_told) {
  for (const Codec codec : kCodecs) expect_the_first_fault(mixed(codec));
}

TEST(dense_bytes_do_not_depend_on_threads) {
  std::vector<float> values(200'000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) - 99.5f;
  Alone alone;
  std::vector<std::uint8_t> expected(kHeaderBytes + 1 + 4 * values.size()), frame(expected.size());
  std::size_t length = 0;
  CHECK(encode_dense(header(Codec::kFloat32), {}, values, expected, &length, &alone).ok());
  for_each_pool([&](Pool* pool) {
    CHECK(encode_dense(header(Codec::kFloat32), {}, values, frame, &length, pool).ok());
    CHECK(frame == expected);
    std::vector<float> back(values.size());
    Decoded decoded;
    CHECK(decode(frame, values.size(), std::nullopt, {}, back, &decoded, pool).ok());
    CHECK(back == values);
  });
}

void expect_whole(Message message) {
  Alone alone;
  std::vector<float> whole(message.numel, 0.0f);
  for (std::size_t i = 0; i < message.indices.size(); ++i) {
    whole[static_cast<std::size_t>(message.indices[i])] = message.values[i];
  }
  const Sent expected = encode(message, &alone);
  CHECK(expected.status.ok());
  for_each_pool([&](Pool* pool) {
    CHECK(encode(message, pool).frame == expected.frame);
    const Received got = receive(expected.frame, message, pool);
    CHECK(got.status.ok() && got.decoded.form == BodyForm::kDense);
    CHECK(got.values == whole);
  });
  for (const std::size_t at : {190'000, 77'777, 100'000}) {
    message.values[at] = std::numeric_limits<float>::infinity();
  }
  const Sent refused = encode(message, &alone);
  CHECK(refused.status.code == Code::kBadValue);
  CHECK_EQ(refused.status.value, static_cast<std::uint64_t>(message.indices[77'777]));
  for_each_pool([&](Pool* pool) { same(encode(message, pool).status, refused.status); });
}

TEST(entries_that_are_smaller_as_a_whole_vector_do_not_depend_on_threads) {
  for (const Codec codec : kCodecs) {
    if (in_blocks(codec)) continue;
    for (const bool zeros : {false, true}) expect_whole(entire(codec, zeros));
  }
}

}  // namespace
