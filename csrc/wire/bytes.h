// SPDX-License-Identifier: Apache-2.0
// The one place where bytes of a frame are read and written. Reader and Writer check every access against
// their span; load_le and store_le are for callers that have checked already.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "wire/status.h"

namespace dgs::wire {

static_assert(std::endian::native == std::endian::little, "the packer copies little-endian values in bulk");

using Bytes = std::span<std::uint8_t>;
using ConstBytes = std::span<const std::uint8_t>;

template <class T>
T load_le(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <class T>
void store_le(std::uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

// Up to 8 bytes starting at `at`, zeros past the end of `data`.
inline std::uint64_t load_tail(ConstBytes data, std::size_t at) {
  if (at + 8 <= data.size()) return load_le<std::uint64_t>(data.data() + at);
  std::uint64_t word = 0;
  if (at < data.size()) std::memcpy(&word, data.data() + at, data.size() - at);
  return word;
}

constexpr std::size_t varint_size(std::uint64_t value) {
  return value == 0 ? 1 : (static_cast<std::size_t>(std::bit_width(value)) + 6) / 7;
}

class Reader {
 public:
  explicit Reader(ConstBytes data) : data_(data) {}

  std::size_t position() const { return at_; }
  std::size_t remaining() const { return data_.size() - at_; }

  template <class T>
  bool read(T* value) {
    if (remaining() < sizeof(T)) return false;
    *value = load_le<T>(data_.data() + at_);
    at_ += sizeof(T);
    return true;
  }

  bool take(std::size_t count, ConstBytes* bytes) {
    if (remaining() < count) return false;
    *bytes = data_.subspan(at_, count);
    at_ += count;
    return true;
  }

  // LEB128. A number has one spelling, the shortest. (A selection has many: where its blocks are cut, and
  // with which parameters, is the sender's choice.)
  Code varint(std::uint64_t* value) {
    std::uint64_t result = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      std::uint8_t byte = 0;
      if (!read(&byte)) return Code::kTruncated;
      if (shift == 63 && byte > 1) return Code::kNonCanonical;
      result |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (byte == 0 && shift != 0) return Code::kNonCanonical;
        *value = result;
        return Code::kOk;
      }
    }
    return Code::kNonCanonical;
  }

 private:
  ConstBytes data_;
  std::size_t at_ = 0;
};

// Once something did not fit, `ok()` stays false and nothing more is written.
class Writer {
 public:
  explicit Writer(Bytes data) : data_(data) {}

  bool ok() const { return ok_; }
  std::size_t position() const { return at_; }

  // The next `count` bytes for the caller to fill; empty when they do not fit.
  Bytes claim(std::size_t count) {
    ok_ = ok_ && data_.size() - at_ >= count;
    if (!ok_) return {};
    at_ += count;
    return data_.subspan(at_ - count, count);
  }

  template <class T>
  void write(T value) {
    if (Bytes to = claim(sizeof(T)); !to.empty()) store_le(to.data(), value);
  }

  void write(ConstBytes bytes) {
    if (Bytes to = claim(bytes.size()); !to.empty()) std::memcpy(to.data(), bytes.data(), bytes.size());
  }

  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) write(static_cast<std::uint8_t>(value | 0x80));
    write(static_cast<std::uint8_t>(value));
  }

 private:
  Bytes data_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace dgs::wire
