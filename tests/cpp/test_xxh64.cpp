// SPDX-License-Identifier: Apache-2.0
// The published vectors: the sanity buffer of the reference distribution, and strings used by several ports.
#include <array>
#include <string_view>

#include "check.h"
#include "wire/xxh64.h"

namespace {

using dgs::wire::xxh64;

constexpr std::uint64_t kSeed = 2654435761u;

std::uint64_t hash_text(std::string_view text) {
  return xxh64({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

std::array<std::uint8_t, 222> sanity_buffer() {
  std::array<std::uint8_t, 222> buffer;
  std::uint64_t generator = kSeed;
  for (auto& byte : buffer) {
    byte = static_cast<std::uint8_t>(generator >> 56);
    generator *= 11400714785074694797u;
  }
  return buffer;
}

TEST(sanity_buffer_of_the_reference) {
  const auto buffer = sanity_buffer();
  const dgs::wire::ConstBytes bytes(buffer);
  CHECK_EQ(xxh64(bytes.first(0)), 0xEF46DB3751D8E999u);
  CHECK_EQ(xxh64(bytes.first(0), kSeed), 0xAC75FDA2929B17EFu);
  CHECK_EQ(xxh64(bytes.first(1)), 0xE934A84ADB052768u);
  CHECK_EQ(xxh64(bytes.first(1), kSeed), 0x5014607643A9B4C3u);
  CHECK_EQ(xxh64(bytes.first(4)), 0x9136A0DCA57457EEu);
  CHECK_EQ(xxh64(bytes.first(14)), 0x8282DCC4994E35C8u);
  CHECK_EQ(xxh64(bytes.first(14), kSeed), 0xC3BD6BF63DEB6DF0u);
  CHECK_EQ(xxh64(bytes), 0xB641AE8CB691C174u);
  CHECK_EQ(xxh64(bytes, kSeed), 0x20CB8AB7AE10C14Au);
}

TEST(strings) {
  CHECK_EQ(hash_text("a"), 0xD24EC4F1A98C6E5Bu);
  CHECK_EQ(hash_text("as"), 0x1C330FB2D66BE179u);
  CHECK_EQ(hash_text("asd"), 0x631C37CE72A97393u);
  CHECK_EQ(hash_text("asdf"), 0x415872F599CEA71Eu);
  CHECK_EQ(hash_text("abc"), 0x44BC2CF5AD770999u);
  CHECK_EQ(hash_text("Call me Ishmael. Some years ago--never mind how long precisely-"), 0x02A2E85470D6FD96u);
}

// A hash that missed a byte or a bit would let damage through.
TEST(every_bit_counts) {
  auto buffer = sanity_buffer();
  const std::uint64_t before = xxh64(buffer);
  for (std::size_t bit = 0; bit < buffer.size() * 8; ++bit) {
    buffer[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    CHECK(xxh64(buffer) != before);
    buffer[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
  }
}

}  // namespace
