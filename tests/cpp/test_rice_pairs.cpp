// SPDX-License-Identifier: Apache-2.0
// Gaps written two at a time: the bits are those of one gap after the other, on whatever processor.
#include <cstdio>
#include <random>
#include <vector>

#include "check.h"
#include "wire/rice_pairs.h"
#include "wire/vectors.h"

namespace {

using namespace dgs::wire;
using Gaps = std::vector<std::uint32_t>;
using Stream = std::vector<std::uint8_t>;

constexpr std::size_t kRoom = kGapsAtATime * 40;

struct Streams {
  Stream low = Stream(kRoom), unary = Stream(kRoom);
  BitWriter low_bits{low};
  UnaryWriter quotients{unary};

  void put(std::uint32_t gap, unsigned rice) {
    low_bits.put(gap & ((1u << rice) - 1), rice);
    quotients.put(gap >> rice);
  }
  void finish() {
    low_bits.finish();
    quotients.finish();
  }
};

// One gap stands in front of the pairs, so that they begin within a byte, and the rest behind them.
std::size_t compare(const Gaps& gaps, unsigned rice) {
  Streams one_by_one, in_pairs;
  one_by_one.put(5, rice);
  in_pairs.put(5, rice);
  const std::size_t paired = write_pairs(gaps, rice, &in_pairs.low_bits, &in_pairs.quotients);
  for (std::size_t i = 0; i < gaps.size(); ++i) {
    one_by_one.put(gaps[i], rice);
    if (i >= paired) in_pairs.put(gaps[i], rice);
  }
  one_by_one.finish();
  in_pairs.finish();
  CHECK(one_by_one.low == in_pairs.low);
  CHECK(one_by_one.unary == in_pairs.unary);
  return paired;
}

TEST(pairs_are_the_same_bits) {
  if (!vectors_here()) return std::puts("this processor writes no pairs"), check::passed();
  std::mt19937_64 random(1);
  for (unsigned rice = 0; rice <= 14; ++rice) {
    for (const std::uint32_t most : {0u, 1u, 3u, 30u}) {  // of the quotients
      for (const std::size_t count : {0, 3, 4, 7, 8, 100, 256}) {
        Gaps gaps(count);
        for (std::uint32_t& gap : gaps) gap = static_cast<std::uint32_t>(random() % ((most + 1) << rice));
        CHECK_EQ(compare(gaps, rice), count / 4 * 4);
      }
    }
  }
}

TEST(what_does_not_fit_in_pairs_is_left) {
  if (!vectors_here()) return std::puts("this processor writes no pairs"), check::passed();
  Gaps gaps(kGapsAtATime, 9);
  CHECK_EQ(compare(gaps, 3), kGapsAtATime);
  CHECK_EQ(compare(gaps, 15), 0u);  // four fields of 15 bits are more than a writer takes at once
  gaps[100] = 31 << 3;
  CHECK_EQ(compare(gaps, 3), 0u);
  gaps[100] = 30 << 3;
  gaps[101] = 30 << 3;  // the longest pair, 62 bits
  CHECK_EQ(compare(gaps, 3), kGapsAtATime);
  gaps.back() = 0x7fffffff;
  CHECK_EQ(compare(gaps, 3), 0u);
}

}  // namespace
