// SPDX-License-Identifier: Apache-2.0
// A block: up to 65536 increasing indices that can be decoded without any other block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dgs::wire {

inline constexpr std::uint64_t kMaxNumel = std::uint64_t{1} << 48;
inline constexpr std::uint64_t kMaxBlockCount = 65536;  // of rice and bitmap; a run may be longer
inline constexpr unsigned kMaxRice = 47;

enum class BlockForm : std::uint8_t {
  kRun = 0,     // consecutive indices: no stream at all
  kRice = 1,    // gaps in Golomb-Rice code
  kBitmap = 2,  // one bit for every index from first to last
};

struct Block {
  BlockForm form = BlockForm::kRun;
  std::uint8_t rice = 0;          // kRice: how many low bits of a gap stand in the stream of low bits
  std::uint64_t count = 0;        // of indices
  std::uint64_t first = 0;        // index
  std::uint64_t span = 0;         // last index - first index
  std::uint64_t unary_bytes = 0;  // kRice: length of the stream of unary parts

  std::uint64_t last() const { return first + span; }
  std::uint64_t gaps() const { return count - 1; }
  // Sum over the gaps of (gap - 1): how many indices between first and last are absent.
  std::uint64_t skipped() const { return span - gaps(); }
  std::uint64_t low_bytes() const { return (gaps() * rice + 7) / 8; }
  std::uint64_t stream_bytes() const {
    if (form == BlockForm::kRun) return 0;
    return form == BlockForm::kRice ? low_bytes() + unary_bytes : span / 8 + 1;
  }
};

}  // namespace dgs::wire
