// SPDX-License-Identifier: Apache-2.0
#include "wire/index_codec.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace dgs::wire {
namespace {

using Indices = std::span<const std::uint64_t>;

// Sum of the quotients (gap - 1) >> rice.
std::uint64_t quotients(Indices indices, unsigned rice) {
  std::uint64_t sum = 0;
  for (std::size_t i = 1; i < indices.size(); ++i) sum += (indices[i] - indices[i - 1] - 1) >> rice;
  return sum;
}

// The bits that a parameter costs, n·(rice + 1) + quotients, are convex in it: a step up costs n and saves
// ceil(quotient / 2) of each. From 2^rice > mean on the quotients add up to less than n, so that no step up
// pays, and walking down from there ends at the exact minimum.
void choose_rice(Indices indices, Block* block) {
  const std::uint64_t gaps = block->gaps();
  const std::uint64_t mean = block->skipped() / gaps;
  unsigned rice = std::min(static_cast<unsigned>(std::bit_width(mean)), kMaxRice);
  std::uint64_t sum = quotients(indices, rice);
  while (rice > 0) {
    const std::uint64_t lower = quotients(indices, rice - 1);
    if (lower >= sum + gaps) break;
    sum = lower;
    --rice;
  }
  block->rice = static_cast<std::uint8_t>(rice);
  block->unary_bytes = (gaps + sum + 7) / 8;
}

// Appends bit fields of up to 47 bits, lowest bit first.
class BitWriter {
 public:
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

// Reads numbers written as that many 0 bits and a 1 bit.
class UnaryReader {
 public:
  explicit UnaryReader(ConstBytes data) : data_(data) {}

  bool next(std::uint64_t* value) {
    const std::uint64_t start = at_;
    while (at_ < data_.size() * 8) {
      const std::uint64_t word = load_tail(data_, at_ / 8) >> (at_ % 8);
      if (word != 0) {
        at_ += static_cast<unsigned>(std::countr_zero(word));
        *value = at_++ - start;
        return true;
      }
      at_ += 64 - at_ % 8;
    }
    return false;
  }

  // All bytes were used, and what is left of the last one is zero.
  bool at_end() const {
    return (at_ + 7) / 8 == data_.size() && (at_ % 8 == 0 || data_.back() >> (at_ % 8) == 0);
  }

 private:
  ConstBytes data_;
  std::uint64_t at_ = 0;  // bits
};

void write_rice(const Block& block, Indices indices, Bytes low, Bytes unary) {
  const std::uint64_t mask = (std::uint64_t{1} << block.rice) - 1;
  BitWriter low_bits(low);
  std::fill(unary.begin(), unary.end(), std::uint8_t{0});
  std::uint64_t at = 0;
  for (std::size_t i = 1; i < indices.size(); ++i) {
    const std::uint64_t gap = indices[i] - indices[i - 1] - 1;
    low_bits.put(gap & mask, block.rice);
    at += gap >> block.rice;
    unary[at / 8] |= static_cast<std::uint8_t>(1u << (at % 8));
    ++at;
  }
  low_bits.finish();
}

Status broken(Code code, const Block& block, const char* detail) {
  return fail(code, "indices", block.first, detail);
}

Status read_rice(const Block& block, ConstBytes low, ConstBytes unary, std::int64_t* indices) {
  const std::uint64_t mask = (std::uint64_t{1} << block.rice) - 1;
  UnaryReader quotients(unary);
  std::uint64_t index = block.first, bit = 0, quotient = 0;
  indices[0] = static_cast<std::int64_t>(index);
  for (std::uint64_t i = 1; i < block.count; ++i, bit += block.rice) {
    if (!quotients.next(&quotient)) {
      return broken(Code::kBadIndex, block,
                    "the unary stream of the block that begins at this index ends early");
    }
    index += ((quotient << block.rice) | ((load_tail(low, bit / 8) >> (bit % 8)) & mask)) + 1;
    indices[i] = static_cast<std::int64_t>(index);
  }
  if (index != block.last()) {
    return broken(Code::kBadIndex, block,
                  "the block that begins at this index does not end where its entry says");
  }
  if (!quotients.at_end() || (bit % 8 != 0 && low.back() >> (bit % 8) != 0)) {
    return broken(Code::kNonCanonical, block, "padding of the block that begins at this index is not zero");
  }
  return {};
}

}  // namespace

Block plan_block(Indices indices) {
  Block block;
  block.count = indices.size();
  block.first = indices.front();
  block.span = indices.back() - indices.front();
  if (block.skipped() == 0) return block;
  block.form = BlockForm::kRice;
  choose_rice(indices, &block);
  return block;
}

void write_streams(const Block& block, Indices indices, Bytes streams) {
  if (block.form == BlockForm::kRun) return;
  write_rice(block, indices, streams.first(block.low_bytes()), streams.subspan(block.low_bytes()));
}

Status read_streams(const Block& block, ConstBytes streams, std::int64_t* indices) {
  if (block.form == BlockForm::kRice) {
    return read_rice(block, streams.first(block.low_bytes()), streams.subspan(block.low_bytes()), indices);
  }
  std::iota(indices, indices + block.count, static_cast<std::int64_t>(block.first));
  return {};
}

}  // namespace dgs::wire
