// SPDX-License-Identifier: Apache-2.0
// Writers of the two streams of a rice block. Neither writes past its span, whatever it is given.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wire/bytes.h"

namespace dgs::wire {

// Appends bit fields, lowest bit first.
class BitWriter {
 public:
  static constexpr unsigned kMost = 56;  // bits of a field

  explicit BitWriter(Bytes data) : data_(data) {}

  void put(std::uint64_t field, unsigned bits) {
    pending_ |= field << filled_;
    filled_ += bits;
    if (at_ + 8 <= data_.size()) {
      store_le(data_.data() + at_, pending_);
      at_ += filled_ / 8;
      pending_ >>= filled_ & ~7u;
      filled_ &= 7;
    } else {
      for (; filled_ >= 8; filled_ -= 8, pending_ >>= 8) flush_byte();
    }
  }

  void finish() {
    if (filled_ > 0) flush_byte();
  }

 private:
  void flush_byte() {
    if (at_ < data_.size()) data_[at_++] = static_cast<std::uint8_t>(pending_);
  }

  Bytes data_;
  std::size_t at_ = 0;
  std::uint64_t pending_ = 0;
  unsigned filled_ = 0;  // bits of pending_, below 8 between calls
};

// Appends numbers as that many 0 bits and a 1 bit.
class UnaryWriter {
 public:
  explicit UnaryWriter(Bytes data) : bits_(data) {}

  void put(std::uint64_t number) {
    for (; number >= BitWriter::kMost; number -= BitWriter::kMost) bits_.put(0, BitWriter::kMost);
    bits_.put(std::uint64_t{1} << number, static_cast<unsigned>(number) + 1);
  }

  // Four at once, which shortens the chain of additions that one bit's place is to the next one's.
  void put(std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t d) {
    const std::uint64_t two = a + b + 2, all = two + c + d + 2;
    if ((a | b | c | d) < BitWriter::kMost && all <= BitWriter::kMost) {
      const std::uint64_t low = std::uint64_t{1} << a | std::uint64_t{1} << (two - 1);
      const std::uint64_t high = std::uint64_t{1} << c | std::uint64_t{1} << (all - two - 1);
      bits_.put(low | high << two, static_cast<unsigned>(all));
    } else {
      for (const std::uint64_t number : {a, b, c, d}) put(number);
    }
  }

  // Numbers that are bits already: those of `a`, then those of `b`, 62 at most of each.
  void put_bits(std::uint64_t a, unsigned a_bits, std::uint64_t b, unsigned b_bits) {
    if (a_bits + b_bits <= BitWriter::kMost) return bits_.put(a | b << a_bits, a_bits + b_bits);
    put_long(a, a_bits);
    put_long(b, b_bits);
  }

  void finish() { bits_.finish(); }

 private:
  void put_long(std::uint64_t field, unsigned bits) {
    const unsigned lower = bits / 2;
    bits_.put(field & ((std::uint64_t{1} << lower) - 1), lower);
    bits_.put(field >> lower, bits - lower);
  }

  BitWriter bits_;
};

}  // namespace dgs::wire
