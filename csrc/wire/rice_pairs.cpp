// SPDX-License-Identifier: Apache-2.0
#include "wire/rice_pairs.h"

#include <algorithm>
#include <bit>

#include "wire/vectors.h"

namespace dgs::wire {
namespace {

// 2^q is read off a float's exponent and must fit in 31 bits, and the low bits of four gaps in one field.
constexpr std::int32_t kMostQuotient = 30;
constexpr unsigned kMostLowBits = BitWriter::kMost / 4;

struct Pairs {
  std::uint64_t low[kGapsAtATime / 2], unary[kGapsAtATime / 2];
  std::uint32_t length[kGapsAtATime / 2];  // of the unary bits
};

DGS_WIRE_VECTORS std::int32_t largest(const std::uint32_t* gaps, std::size_t count) {
  std::int32_t most = 0;
  for (std::size_t i = 0; i < count; ++i) most = std::max(most, static_cast<std::int32_t>(gaps[i]));
  return most;
}

// No branch and no dependence from one pair to the next, so that the compiler makes vectors of it: the ones
// of a and b stand at bits a and a + 1 + b, and 2^a + 2·2^a·2^b is both.
DGS_WIRE_VECTORS void make_pairs(const std::uint32_t* gaps, std::size_t count, unsigned rice, Pairs* pairs) {
  std::uint32_t quotients[kGapsAtATime], ones[kGapsAtATime];
  for (std::size_t i = 0; i < count; ++i) {
    quotients[i] = gaps[i] >> rice;
    const auto power = std::bit_cast<float>((quotients[i] + 127) << 23);
    ones[i] = static_cast<std::uint32_t>(static_cast<std::int32_t>(power));
  }
  const std::uint32_t mask = (1u << rice) - 1;
  for (std::size_t i = 0; i < count / 2; ++i) {
    const std::uint64_t a = ones[2 * i], b = ones[2 * i + 1];
    pairs->unary[i] = a + 2 * (a * b);
    pairs->length[i] = quotients[2 * i] + quotients[2 * i + 1] + 2;
    pairs->low[i] = (gaps[2 * i] & mask) | static_cast<std::uint64_t>(gaps[2 * i + 1] & mask) << rice;
  }
}

DGS_WIRE_VECTORS void put_pairs(const Pairs& pairs, std::size_t count, unsigned rice, BitWriter* to_low,
                                UnaryWriter* to_unary) {
  BitWriter low = *to_low;  // copies, so that they stay in registers
  UnaryWriter unary = *to_unary;
  const auto put_unary = [&](std::size_t i) {
    unary.put_bits(pairs.unary[i], pairs.length[i], pairs.unary[i + 1], pairs.length[i + 1]);
  };
  const auto two = [&](std::size_t i) { return pairs.low[i] | pairs.low[i + 1] << 2 * rice; };
  // The two streams side by side, as each put waits for its own stream's last; and few low bits four at once.
  const std::size_t fours = rice <= BitWriter::kMost / 8 ? count & ~std::size_t{3} : 0;
  for (std::size_t i = 0; i < fours; i += 4) {
    put_unary(i);
    put_unary(i + 2);
    low.put(two(i) | two(i + 2) << 4 * rice, 8 * rice);
  }
  for (std::size_t i = fours; i < count; i += 2) {
    put_unary(i);
    low.put(two(i), 4 * rice);
  }
  *to_low = low;
  *to_unary = unary;
}

}  // namespace

std::size_t write_pairs(std::span<const std::uint32_t> gaps, unsigned rice, BitWriter* low,
                        UnaryWriter* unary) {
  const std::size_t count = gaps.size() & ~std::size_t{3};
  if (rice > kMostLowBits || largest(gaps.data(), count) >> rice > kMostQuotient) return 0;
  Pairs pairs;
  make_pairs(gaps.data(), count, rice, &pairs);
  put_pairs(pairs, count / 2, rice, low, unary);
  return count;
}

}  // namespace dgs::wire
