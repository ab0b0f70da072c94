// SPDX-License-Identifier: Apache-2.0
// One block at a time: every form round-trips, costs what its plan says, and no stream makes the reader
// stray.
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "check.h"
#include "wire/directory.h"
#include "wire/index_codec.h"

namespace {

using namespace dgs::wire;
using Numbers = std::vector<std::uint64_t>;

std::vector<std::uint8_t> streams_of(const Block& block, const Numbers& indices) {
  std::vector<std::uint8_t> streams(block.stream_bytes(), 0xab);
  write_streams(block, indices, streams);
  return streams;
}

void round_trip(const Numbers& indices) {
  const Block block = plan_block(indices);
  CHECK_EQ(block.count, indices.size());
  std::vector<std::int64_t> back(indices.size() + 1, -7);
  CHECK(read_streams(block, streams_of(block, indices), back.data()).ok());
  CHECK_EQ(back.back(), -7);  // not one index more
  back.pop_back();
  CHECK(Numbers(back.begin(), back.end()) == indices);
}

Numbers random_indices(std::mt19937_64* random, std::size_t count, std::uint64_t numel) {
  std::set<std::uint64_t> chosen;
  std::uniform_int_distribution<std::uint64_t> any(0, numel - 1);
  while (chosen.size() < count) chosen.insert(any(*random));
  return {chosen.begin(), chosen.end()};
}

Numbers consecutive(std::uint64_t first, std::size_t count) {
  Numbers indices(count);
  std::iota(indices.begin(), indices.end(), first);
  return indices;
}

TEST(random_blocks_of_all_sizes) {
  std::mt19937_64 random(1);
  for (const std::size_t count : {1, 2, 3, 63, 64, 65, 1000, 4096}) {
    for (const std::uint64_t spread : {1, 2, 3, 10, 100, 100000}) {
      round_trip(random_indices(&random, count, count * spread));
    }
  }
}

TEST(few_indices_far_apart) {
  round_trip({0, (std::uint64_t{1} << 40) - 1});
  round_trip({0, 1, kMaxNumel - 1});
  round_trip({kMaxNumel - 2, kMaxNumel - 1});
  round_trip({5, std::uint64_t{1} << 39, (std::uint64_t{1} << 40) - 1});
  std::mt19937_64 random(2);
  round_trip(random_indices(&random, 100, kMaxNumel));
}

TEST(the_largest_block) {
  std::mt19937_64 random(3);
  round_trip(random_indices(&random, kMaxBlockCount, kMaxBlockCount * 50));
}

TEST(runs_cost_nothing) {
  for (const std::size_t count : {1, 2, 64, 100000}) {
    const Numbers indices = consecutive(17, count);
    CHECK(plan_block(indices).form == BlockForm::kRun);
    CHECK_EQ(plan_block(indices).stream_bytes(), 0u);
    round_trip(indices);
  }
}

TEST(half_full_costs_a_bit_each) {
  std::mt19937_64 random(4);
  const Numbers indices = random_indices(&random, 2000, 4000);
  const Block block = plan_block(indices);
  CHECK_EQ(block.rice, 0);
  CHECK_EQ(block.stream_bytes(), (block.span + 7) / 8);
  round_trip(indices);
}

// The descent must find what trying every parameter finds.
TEST(rice_parameter_is_the_best) {
  std::mt19937_64 random(5);
  for (int trial = 0; trial < 200; ++trial) {
    const std::uint64_t spread = std::uint64_t{4} << (trial % 30);
    Numbers indices = random_indices(&random, 2 + random() % 200, 1000 * spread);
    if (trial % 3 == 0) indices.push_back(indices.back() + (std::uint64_t{1} << 44));  // one outlier
    const Block block = plan_block(indices);
    if (block.form != BlockForm::kRice) continue;
    for (unsigned rice = 0; rice <= kMaxRice; ++rice) {
      std::uint64_t unary = block.gaps();
      for (std::size_t i = 1; i < indices.size(); ++i) unary += (indices[i] - indices[i - 1] - 1) >> rice;
      CHECK(block.low_bytes() + block.unary_bytes <= (block.gaps() * rice + 7) / 8 + (unary + 7) / 8 + 1);
    }
  }
}

TEST(random_percent_costs_little_over_its_entropy) {
  std::mt19937_64 random(6);
  const Block block = plan_block(random_indices(&random, 4096, 409600));
  CHECK(static_cast<double>(block.stream_bytes()) * 8 / 4096 < 8.2);
}

TEST(any_damage_to_a_stream_is_seen_or_harmless) {
  std::mt19937_64 random(7);
  for (const std::uint64_t spread : {2, 3, 100}) {
    const Numbers indices = random_indices(&random, 200, 200 * spread);
    const Block block = plan_block(indices);
    const auto good = streams_of(block, indices);
    std::vector<std::int64_t> back(indices.size());
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
      auto bad = good;
      bad[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
      if (!read_streams(block, bad, back.data()).ok()) continue;
      for (std::size_t i = 1; i < back.size(); ++i) CHECK(back[i] > back[i - 1]);
      CHECK(back.front() == static_cast<std::int64_t>(block.first));
      CHECK(back.back() == static_cast<std::int64_t>(block.last()));
    }
  }
}

TEST(padding_must_be_zero) {
  const Numbers indices = {0, 5, 9};
  const Block rice{.form = BlockForm::kRice, .rice = 1, .count = 3, .first = 0, .span = 9, .unary_bytes = 1};
  std::vector<std::int64_t> back(3);
  auto streams = streams_of(rice, indices);
  CHECK(read_streams(rice, streams, back.data()).ok());
  for (const std::size_t byte : {0, 1}) {
    streams[byte] ^= 0x80;
    CHECK(read_streams(rice, streams, back.data()).code == Code::kNonCanonical);
    streams[byte] ^= 0x80;
  }
}

Code entry_code(const std::vector<std::uint8_t>& bytes, std::uint64_t numel) {
  Reader reader(bytes);
  Block block;
  return read_entry(&reader, 0, numel, &block).code;
}

TEST(entries_round_trip_and_stay_in_the_vector) {
  std::mt19937_64 random(8);
  for (int trial = 0; trial < 1000; ++trial) {
    const std::uint64_t numel = std::uint64_t{8} << (trial % 44);
    const Numbers indices = random_indices(&random, 1 + random() % 6, numel);
    const Block block = plan_block(indices);
    std::vector<std::uint8_t> bytes(kMaxEntryBytes);
    Writer writer(bytes);
    write_entry(block, 0, &writer);
    CHECK(writer.ok());
    CHECK_EQ(writer.position(), entry_bytes(block, 0));
    bytes.resize(writer.position());
    CHECK(entry_code(bytes, numel) == Code::kOk);
    CHECK(entry_code(bytes, block.last() + 1) == Code::kOk);
    CHECK(entry_code(bytes, block.last()) == Code::kBadIndex);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
      CHECK(entry_code({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(cut)}, numel) ==
            Code::kTruncated);
    }
  }
}

TEST(entries_that_lie) {
  CHECK(entry_code({48, 2, 0, 9, 1}, 100) == Code::kOk);
  CHECK(entry_code({49, 2, 0, 9, 1}, 100) == Code::kBadDirectory);  // no such tag
  CHECK(entry_code({0, 0, 0}, 100) == Code::kBadDirectory);         // no index
  CHECK(entry_code({1, 1, 0, 0, 0}, 100) == Code::kBadDirectory);   // one index in rice
  CHECK(entry_code({1, 2, 0, 1, 1}, 100) == Code::kNonCanonical);   // a run in rice
  CHECK(entry_code({1, 3, 0, 1, 1}, 100) == Code::kBadIndex);       // span below count
  CHECK(entry_code({1, 2, 0, 9, 0}, 100) == Code::kBadDirectory);   // no unary bytes
  CHECK(entry_code({1, 2, 0, 9, 3}, 100) == Code::kBadDirectory);   // more than 9 bits can be
  CHECK(entry_code({1, 2, 0, 9, 2}, 100) == Code::kOk);
  CHECK(entry_code({0, 1, 99}, 100) == Code::kOk);
  CHECK(entry_code({0, 1, 100}, 100) == Code::kBadIndex);
  CHECK(entry_code({0, 1, 0}, 0) == Code::kBadIndex);  // nothing fits an empty vector
  // 65536 indices in rice, and 65537
  CHECK(entry_code({1, 0x80, 0x80, 0x04, 0, 0x82, 0x80, 0x04, 0x80, 0x40}, 1u << 20) == Code::kOk);
  CHECK(entry_code({1, 0x81, 0x80, 0x04, 0, 0x82, 0x80, 0x04, 0x80, 0x40}, 1u << 20) == Code::kBadDirectory);
}

}  // namespace
