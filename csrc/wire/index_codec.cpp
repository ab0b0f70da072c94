// SPDX-License-Identifier: Apache-2.0
#include "wire/index_codec.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <type_traits>

#include "wire/bit_stream.h"
#include "wire/rice_pairs.h"
#include "wire/vectors.h"

namespace dgs::wire {
namespace {

using Indices = std::span<const std::uint64_t>;

// Gaps less one, some at a time, and in 32 bits where they fit.
template <class Gap, class Visit>
void for_gaps(Indices indices, const Visit& visit) {
  Gap gaps[kGapsAtATime];
  while (indices.size() > 1) {
    const std::size_t n = std::min(kGapsAtATime, indices.size() - 1);
    vectorised(
        [](const std::uint64_t* from, std::size_t count, Gap* to) DGS_WIRE_INLINE {
          for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<Gap>(from[i + 1] - from[i] - 1);
        },
        indices.data(), n, +gaps);
    visit(std::span<const Gap>(gaps, n));
    indices = indices.subspan(n);
  }
}

constexpr bool narrow(const Block& block) { return block.span < (std::uint64_t{1} << 31); }

// Sums of the quotients gap >> r for r = most and the next lower parameters.
constexpr std::size_t kTried = 3;
using Sums = std::uint64_t[kTried];

template <class Gap>
void add_quotients(std::span<const Gap> gaps, unsigned most, Sums& sums) {
  for (unsigned j = 0; j < kTried && j <= most; ++j) {
    sums[j] += vectorised(
        [](std::span<const Gap> all, unsigned rice) DGS_WIRE_INLINE {
          Gap sum = 0;  // at most the block's span
          for (const Gap gap : all) sum += gap >> rice;
          return sum;
        },
        gaps, most - j);
  }
}

// The bits that a parameter costs, n·(rice + 1) + quotients, are convex in it: a step up costs n and saves
// ceil(quotient / 2) of each. From 2^rice > mean on the quotients add up to less than n, so that no step up
// pays. The one exact minimum is found by walking down from there, three parameters to a pass.
void choose_rice(Indices indices, Block* block) {
  const std::uint64_t gaps = block->gaps();
  unsigned rice = std::min(static_cast<unsigned>(std::bit_width(block->skipped() / gaps)), kMaxRice);
  std::uint64_t sum = 0;
  for (bool first = true;; first = false) {
    Sums sums = {};
    const auto add = [&](auto some) { add_quotients(some, rice, sums); };
    narrow(*block) ? for_gaps<std::uint32_t>(indices, add) : for_gaps<std::uint64_t>(indices, add);
    if (first) sum = sums[0];
    unsigned down = 1;
    while (down < kTried && down <= rice && sums[down] < sum + gaps) sum = sums[down++];
    rice -= down - 1;
    if (down < kTried || rice == 0) break;
  }
  block->rice = static_cast<std::uint8_t>(rice);
  block->unary_bytes = (gaps + sum + 7) / 8;
}

template <class Gap>
void write_gaps(std::span<const Gap> gaps, unsigned rice, BitWriter* low, UnaryWriter* unary) {
  const Gap mask = static_cast<Gap>((std::uint64_t{1} << rice) - 1);
  const std::size_t fours = gaps.size() & ~std::size_t{3};
  for (std::size_t i = 0; i < fours; i += 4) {
    unary->put(gaps[i] >> rice, gaps[i + 1] >> rice, gaps[i + 2] >> rice, gaps[i + 3] >> rice);
  }
  for (std::size_t i = fours; i < gaps.size(); ++i) unary->put(gaps[i] >> rice);
  const std::size_t packed = rice <= BitWriter::kMost / 4 ? fours : 0;
  for (std::size_t i = 0; i < packed; i += 4) {
    const std::uint64_t a = gaps[i] & mask, b = gaps[i + 1] & mask, c = gaps[i + 2] & mask,
                        d = gaps[i + 3] & mask;
    low->put((a | b << rice) | (c | d << rice) << (2 * rice), 4 * rice);
  }
  for (std::size_t i = packed; i < gaps.size(); ++i) low->put(gaps[i] & mask, rice);
}

template <class Gap>
void write_rice(const Block& block, Indices indices, Bytes low, Bytes unary) {
  const bool in_pairs = vectors_here();
  BitWriter low_bits(low);
  UnaryWriter quotients(unary);
  for_gaps<Gap>(indices, [&](std::span<const Gap> gaps) {
    if constexpr (std::is_same_v<Gap, std::uint32_t>) {
      if (in_pairs) gaps = gaps.subspan(write_pairs(gaps, block.rice, &low_bits, &quotients));
    }
    write_gaps(gaps, block.rice, &low_bits, &quotients);
  });
  low_bits.finish();
  quotients.finish();
}

Status broken(Code code, const Block& block, const char* detail) {
  return fail(code, "indices", block.first, detail);
}

// The i-th 1 of the unary stream stands behind as many 0s as all quotients up to there add up to, so that an
// index needs of those before it only the sum of their low bits.
Status read_rice(const Block& block, ConstBytes low, ConstBytes unary, std::int64_t* indices) {
  const unsigned rice = block.rice;
  const std::uint64_t mask = (std::uint64_t{1} << rice) - 1;
  const std::uint64_t gaps = block.gaps();
  // Up to here 8 bytes can be loaded at a gap's low bits.
  const std::uint64_t whole = low.size() < 8 || rice == 0 ? 0 : std::min(gaps, (low.size() - 8) * 8 / rice);
  std::uint64_t index = block.first, bit = 0, i = 0, before = 0;  // before: 0s in front of the last 1
  indices[0] = static_cast<std::int64_t>(index);
  std::uint64_t end = 0;  // one past the last 1
  const auto take = [&](std::uint64_t word, std::uint64_t at, std::uint64_t most, const auto& load) {
    for (; word != 0 && i < most; word &= word - 1) {
      end = at + static_cast<unsigned>(std::countr_zero(word)) + 1;
      const std::uint64_t zeros = end - ++i;
      index += ((zeros - before) << rice) + ((load(bit / 8) >> (bit % 8)) & mask) + 1;
      before = zeros;
      bit += rice;
      indices[i] = static_cast<std::int64_t>(index);
    }
    return word;
  };
  for (std::size_t at = 0; at < unary.size() && i < gaps; at += 8) {
    std::uint64_t word = load_tail(unary, at);
    word = take(word, at * 8, whole,
                [&](std::uint64_t from) { return load_le<std::uint64_t>(low.data() + from); });
    take(word, at * 8, gaps, [&](std::uint64_t from) { return load_tail(low, from); });
  }
  if (i < gaps) {
    return broken(Code::kBadIndex, block,
                  "the unary stream of the block that begins at this index ends early");
  }
  if (index != block.last()) {
    return broken(Code::kBadIndex, block,
                  "the block that begins at this index does not end where its entry says");
  }
  const bool unary_ends = (end + 7) / 8 == unary.size() && (end % 8 == 0 || unary.back() >> (end % 8) == 0);
  if (!unary_ends || (bit % 8 != 0 && low.back() >> (bit % 8) != 0)) {
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
  const Bytes low = streams.first(block.low_bytes()), unary = streams.subspan(block.low_bytes());
  narrow(block) ? write_rice<std::uint32_t>(block, indices, low, unary)
                : write_rice<std::uint64_t>(block, indices, low, unary);
}

Status read_streams(const Block& block, ConstBytes streams, std::int64_t* indices) {
  if (block.form == BlockForm::kRice) {
    return read_rice(block, streams.first(block.low_bytes()), streams.subspan(block.low_bytes()), indices);
  }
  std::iota(indices, indices + block.count, static_cast<std::int64_t>(block.first));
  return {};
}

}  // namespace dgs::wire
