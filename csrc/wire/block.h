// SPDX-License-Identifier: Apache-2.0
// A block: increasing indices that can be decoded without any other block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dgs::wire {

inline constexpr std::uint64_t kMaxNumel = std::uint64_t{1} << 48;
inline constexpr std::uint64_t kMaxBlockCount = 65536;  // of a rice block; a run may be longer
inline constexpr unsigned kMaxRice = 47;

enum class BlockForm : std::uint8_t {
  kRun,   // consecutive indices: no stream at all
  kRice,  // gaps in Golomb-Rice code; parameter 0 makes it a bitmap of what follows the first index
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
  std::uint64_t stream_bytes() const { return form == BlockForm::kRun ? 0 : low_bytes() + unary_bytes; }
};

}  // namespace dgs::wire
