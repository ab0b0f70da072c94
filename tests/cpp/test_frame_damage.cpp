// SPDX-License-Identifier: Apache-2.0
// Damage that the decoder must survive: cut, altered and lying frames, with checksums that agree and without.
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "frames.h"
#include "wire/xxh64.h"

namespace {

using namespace frames;

void reseal(std::vector<std::uint8_t>* frame) {
  Header header;
  if (!read_header(*frame, &header).ok()) return;
  header.payload_length = frame->size() - kHeaderBytes;
  header.checksum = xxh64(ConstBytes(*frame).subspan(kHeaderBytes));
  write_header(header, frame->data());
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
      for (std::uint8_t codec = 0; codec < 10; ++codec) {
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

}  // namespace
