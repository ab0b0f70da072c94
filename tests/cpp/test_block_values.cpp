// SPDX-License-Identifier: Apache-2.0
// The codecs with a scale per block, from the quantiser to the entries that arrive.
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/capability.h"
#include "cpu/quantize_blocks.h"
#include "wire/block_values.h"
#include "wire/frame.h"

namespace {

using namespace dgs::wire;

constexpr Codec kCodecs[] = {Codec::kInt8, Codec::kLevel4, Codec::kLevel3, Codec::kLevel2, Codec::kSign};
constexpr std::uint64_t kNumel = 3'000'000;

Alone alone;

struct OneThread {
  void operator()(std::int64_t n, const auto& body) const {
    for (std::int64_t i = 0; i < n; ++i) body(i);
  }
};

// Segments with unused slots between them, quantised.
struct Sample {
  std::vector<std::int64_t> indices, starts = {0}, nnz;
  std::vector<float> values;

  template <class Value>
  Sample(Codec codec, const std::vector<std::int64_t>& counts, const Value& value) {
    std::int64_t index = 0;
    for (const std::int64_t count : counts) {
      for (std::int64_t i = 0; i < count + 3; ++i) {
        index += 1 + i % 199;
        indices.push_back(index);
        values.push_back(i < count ? value() : NAN);
      }
      nnz.push_back(count);
      starts.push_back(static_cast<std::int64_t>(indices.size()));
    }
    dgs::cpu::quantize_blocks(dgs::cpu::loops(), values.data(), static_cast<std::int64_t>(counts.size()),
                              starts.data(), nnz.data(), static_cast<dgs::BlockCodec>(codec), OneThread());
  }
  std::vector<std::pair<std::int64_t, float>> sent() const {
    std::vector<std::pair<std::int64_t, float>> kept;
    for (std::size_t s = 0; s < nnz.size(); ++s) {
      for (auto i = static_cast<std::size_t>(starts[s]); i < static_cast<std::size_t>(starts[s] + nnz[s]);
           ++i) {
        if (values[i] != 0) kept.emplace_back(indices[i], values[i]);
      }
    }
    return kept;
  }
};

Status encode(const Sample& sample, Codec codec, std::vector<std::uint8_t>* frame) {
  Header header;
  header.kind = 1;
  header.codec = codec;
  Scratch scratch;
  frame->resize(frame_capacity(sample.indices.size(), codec, kNumel, sample.nnz.size(), 0));
  std::size_t length = 0;
  Status status = encode_sparse(header, {}, {sample.indices, sample.values, sample.starts, sample.nnz},
                                kNumel, &scratch, *frame, &length, &alone);
  frame->resize(length);
  return status;
}

void round_trip(Codec codec, const Sample& sample) {
  std::vector<std::uint8_t> frame;
  const Status sent = encode(sample, codec, &frame);
  CHECK_EQ(std::string(code_name(sent.code)) + sent.detail, "ok");
  std::vector<std::int64_t> indices(sample.indices.size());
  std::vector<float> values(sample.values.size());
  Decoded decoded;
  const Status status = decode(frame, kNumel, std::nullopt, indices, values, &decoded, &alone);
  CHECK_EQ(std::string(code_name(status.code)), "ok");
  const auto expected = sample.sent();
  CHECK_EQ(decoded.header.count, expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(indices[i] == expected[i].first && values[i] == expected[i].second);
  }
}

TEST(what_is_quantised_arrives) {
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  for (const Codec codec : kCodecs) {
    for (const std::vector<std::int64_t>& counts :
         {std::vector<std::int64_t>{}, {0}, {1}, {127, 0, 128, 129, 5}, {1000}, {20'000, 300}}) {
      round_trip(codec, Sample(codec, counts, [&] { return normal(random); }));
      round_trip(codec, Sample(codec, counts, [&] {
                   return std::ldexp(normal(random), static_cast<int>(random() % 300) - 150);
                 }));
      round_trip(codec, Sample(codec, counts, [&] { return std::ldexp(normal(random), -126); }));
      round_trip(codec,
                 Sample(codec, counts, [&] { return std::ldexp(1.9f * (random() % 2 ? 1 : -1), 127); }));
    }
  }
}

TEST(what_is_not_quantised_is_refused) {
  for (const Codec codec : kCodecs) {
    for (const float odd : {1.0f + 0x1p-20f, 0x1p-40f, 0x1p-140f, 1000.0f}) {
      Sample sample(codec, {200}, [] { return 1.0f; });
      sample.values[150] = odd;
      std::vector<std::uint8_t> frame;
      const Status status = encode(sample, codec, &frame);
      CHECK(status.code == Code::kNotRepresentable);
      CHECK_EQ(status.value, static_cast<std::uint64_t>(sample.indices[128]));
    }
    Sample sample(codec, {200}, [] { return 1.0f; });
    sample.values[150] = INFINITY;
    std::vector<std::uint8_t> frame;
    const Status status = encode(sample, codec, &frame);
    CHECK(status.code == Code::kBadValue);
    CHECK_EQ(status.value, static_cast<std::uint64_t>(sample.indices[150]));
  }
}

TEST(a_whole_vector_has_no_blocks) {
  for (const Codec codec : kCodecs) {
    Header header;
    header.kind = 1;
    header.codec = codec;
    std::vector<std::uint8_t> frame(1000);
    std::size_t length = 0;
    CHECK(encode_dense(header, {}, std::vector<float>(10, 1.0f), frame, &length, &alone).code ==
          Code::kArgument);
  }
}

TEST(every_code_of_every_scale_is_a_number_or_refused) {
  for (const Codec codec : kCodecs) {
    const unsigned bits = code_bits(codec);
    for (std::uint32_t scale = 0; scale < 65536; ++scale) {
      const ValueBlock block{1, static_cast<std::uint16_t>(scale)};
      if (!valid_scale(codec, block.scale)) continue;
      for (std::uint32_t code = 0; code < 1u << bits; ++code) {
        const auto byte = static_cast<std::uint8_t>(code);
        float value = 0;
        if (!unpack_block(codec, block, {&byte, 1}, &value)) continue;
        const float magnitude = std::fabs(value);
        CHECK(magnitude >= 0x1p-126f && magnitude <= 0x1.fffffep127f);
      }
    }
  }
}

}  // namespace
