// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <limits>
#include <vector>

#include "check.h"
#include "wire/bytes.h"

namespace {

using namespace dgs::wire;

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

Code read_varint(const std::vector<std::uint8_t>& bytes, std::uint64_t* value) {
  Reader reader(bytes);
  return reader.varint(value);
}

TEST(varints_of_every_width) {
  for (unsigned bits = 0; bits <= 64; ++bits) {
    const std::uint64_t largest = bits == 0 ? 0 : kMost >> (64 - bits);
    for (const std::uint64_t value : {largest, largest / 2 + 1}) {
      std::array<std::uint8_t, 10> bytes;
      Writer writer(bytes);
      writer.varint(value);
      CHECK(writer.ok());
      CHECK_EQ(writer.position(), varint_size(value));
      Reader reader(ConstBytes(bytes).first(writer.position()));
      std::uint64_t back = 0;
      CHECK(reader.varint(&back) == Code::kOk);
      CHECK_EQ(back, value);
      CHECK_EQ(reader.remaining(), std::size_t{0});
    }
  }
}

TEST(varints_with_a_second_spelling_are_refused) {
  std::uint64_t value = 0;
  CHECK(read_varint({0x80, 0x00}, &value) == Code::kNonCanonical);
  CHECK(read_varint({0xff, 0x80, 0x00}, &value) == Code::kNonCanonical);
  CHECK(read_varint({0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02}, &value) ==
        Code::kNonCanonical);
  CHECK(read_varint({0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, &value) ==
        Code::kNonCanonical);
}

TEST(varints_that_end_early_are_truncated) {
  std::uint64_t value = 0;
  CHECK(read_varint({}, &value) == Code::kTruncated);
  CHECK(read_varint({0x80}, &value) == Code::kTruncated);
  CHECK(read_varint({0xff, 0xff, 0xff}, &value) == Code::kTruncated);
}

TEST(reader_stays_inside) {
  const std::array<std::uint8_t, 3> bytes = {1, 2, 3};
  Reader reader(bytes);
  std::uint32_t wide = 7;
  ConstBytes part;
  CHECK(!reader.read(&wide));
  CHECK(!reader.take(4, &part));
  CHECK_EQ(reader.position(), std::size_t{0});
  CHECK(reader.take(3, &part));
  CHECK_EQ(part[2], 3);
  std::uint8_t narrow = 7;
  CHECK(!reader.read(&narrow));
}

TEST(writer_stops_for_good) {
  std::array<std::uint8_t, 3> bytes = {9, 9, 9};
  Writer writer(Bytes(bytes).first(2));
  writer.write(std::uint8_t{1});
  writer.write(std::uint16_t{0x0202});
  CHECK(!writer.ok());
  writer.write(std::uint8_t{3});
  CHECK_EQ(writer.position(), std::size_t{1});
  CHECK_EQ(bytes[1], 9);
  CHECK(writer.claim(0).empty());
}

TEST(tail_is_zero_past_the_end) {
  const std::array<std::uint8_t, 9> bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  CHECK_EQ(load_tail(bytes, 0), 0x0807060504030201u);
  CHECK_EQ(load_tail(bytes, 1), 0x0908070605040302u);
  CHECK_EQ(load_tail(bytes, 7), 0x0908u);
  CHECK_EQ(load_tail(bytes, 9), 0u);
  CHECK_EQ(load_tail(bytes, 100), 0u);
}

}  // namespace
