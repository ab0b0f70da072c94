// SPDX-License-Identifier: Apache-2.0
#include "wire/block_values.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "wire/entries.h"
#include "wire/half.h"
#include "wire/vectors.h"

namespace dgs::wire {
namespace {

constexpr std::uint32_t kMantissa = 0x007fffffu;
constexpr std::uint32_t kSqrt2 = 0x003504f3u;  // mantissa of the float32 nearest to the root of 2

struct Coded {
  std::uint32_t code;
  std::uint32_t wrong;  // 0 where the value is exactly the code's
};
struct Valued {
  std::uint32_t bits;
  std::uint32_t wrong;  // 0 where the code stands for a value
};

// Codes of a few bits, eight at a time in as many bytes as a code has bits. Format::code and Format::decode
// know no branch, so that the loops over a block's values become vectors.
template <class Format, unsigned Bits>
struct Packed {
  static bool pack(std::span<const float> values, std::uint16_t scale, std::uint8_t* codes) {
    std::uint8_t each[kMostTogether + 8];
    const std::uint32_t wrong = vectorised(
        [](std::span<const float> from, std::uint16_t of, std::uint8_t* to) DGS_WIRE_INLINE {
          std::uint32_t any = 0;
          for (std::size_t i = 0; i < from.size(); ++i) {
            const Coded coded = Format::code(std::bit_cast<std::uint32_t>(from[i]), of);
            to[i] = static_cast<std::uint8_t>(coded.code);
            any |= coded.wrong;
          }
          return any;
        },
        values, scale, +each);
    std::memset(each + values.size(), 0, 8);
    for (std::size_t i = 0; i < values.size(); i += 8, codes += Bits) {
      const std::uint64_t word = join(load_le<std::uint64_t>(each + i));
      std::memcpy(codes, &word, (std::min<std::size_t>(8, values.size() - i) * Bits + 7) / 8);
    }
    return wrong == 0;
  }

  static bool unpack(ConstBytes codes, std::uint16_t scale, std::span<float> values) {
    std::uint8_t each[kMostTogether + 8];
    for (std::size_t i = 0; i < values.size(); i += 8) {
      store_le(each + i, spread(load_tail(codes, i / 8 * Bits)));
    }
    const std::uint32_t wrong = vectorised(
        [](const std::uint8_t* from, std::uint16_t of, std::span<float> to) DGS_WIRE_INLINE {
          std::uint32_t any = 0;
          for (std::size_t i = 0; i < to.size(); ++i) {
            const Valued valued = Format::decode(from[i], of);
            to[i] = std::bit_cast<float>(valued.bits);
            any |= valued.wrong;
          }
          return any;
        },
        +each, scale, values);
    const std::size_t used = values.size() * Bits % 8;
    return wrong == 0 && (used == 0 || codes.back() >> used == 0);
  }

 private:
  static constexpr std::size_t kMostTogether = 255;  // a block's count is a byte

  // The low `bits` of each lane of a word.
  static constexpr std::uint64_t low(unsigned bits, unsigned lane) {
    return ((std::uint64_t{1} << bits) - 1) *
           (~std::uint64_t{0} / ((std::uint64_t{1} << (lane - 1) << 1) - 1));
  }
  // Eight codes in a byte each to eight side by side, and back: lanes move together two by two.
  static std::uint64_t join(std::uint64_t word) {
    word = (word | word >> (8 - Bits)) & low(2 * Bits, 16);
    word = (word | word >> (16 - 2 * Bits)) & low(4 * Bits, 32);
    return (word | word >> (32 - 4 * Bits)) & low(8 * Bits, 64);
  }
  static std::uint64_t spread(std::uint64_t word) {
    word &= low(8 * Bits, 64);
    word = (word | word << (32 - 4 * Bits)) & low(4 * Bits, 32);
    word = (word | word << (16 - 2 * Bits)) & low(2 * Bits, 16);
    return (word | word << (8 - Bits)) & low(Bits, 8);
  }
};

// n·2^(scale - 127), |n| <= 127, as n in 8 bits; the largest |n| of a block is 64 or more, or the scale is 1.
struct Int8 {
  static std::uint16_t scale_of(std::uint32_t largest) {
    return static_cast<std::uint16_t>(std::max<std::uint32_t>(largest >> 23, 7) - 6);
  }
  static bool valid(std::uint16_t scale) { return scale >= 1 && scale <= 248; }

  // In floats, where every operation is exact: a scale and its inverse are powers of two, and what has a code
  // is less than 2^7 of them. A value so small that it counts as 0 has none.
  static bool pack(std::span<const float> values, std::uint16_t scale, std::uint8_t* codes) {
    return vectorised(
        [](std::span<const float> from, std::uint16_t of, std::uint8_t* to) DGS_WIRE_INLINE {
          const float inverse = std::bit_cast<float>((254u - of) << 23);
          std::uint32_t wrong = 0;
          for (std::size_t i = 0; i < from.size(); ++i) {
            const auto n = static_cast<std::int32_t>(from[i] * inverse);
            wrong |= (value_of(n, of) ^ std::bit_cast<std::uint32_t>(from[i])) | (n == 0 ? 1u : 0u);
            to[i] = static_cast<std::uint8_t>(n);
          }
          return wrong == 0;
        },
        values, scale, codes);
  }
  static bool unpack(ConstBytes codes, std::uint16_t scale, std::span<float> values) {
    return vectorised(
        [](const std::uint8_t* from, std::uint16_t of, std::span<float> to) DGS_WIRE_INLINE {
          std::uint32_t wrong = 0;
          for (std::size_t i = 0; i < to.size(); ++i) {
            const auto n = static_cast<std::int32_t>(static_cast<std::int8_t>(from[i]));
            wrong |= (n == 0 ? 1u : 0u) | (n == -128 ? 1u : 0u);
            to[i] = std::bit_cast<float>(value_of(n, of));
          }
          return wrong == 0;
        },
        codes.data(), scale, values);
  }

 private:
  static std::uint32_t value_of(std::int32_t n, std::uint16_t scale) {
    const float unit = std::bit_cast<float>(static_cast<std::uint32_t>(scale) << 23);
    return std::bit_cast<std::uint32_t>(static_cast<float>(n) * unit);
  }
};

// Half octaves: t stands for 2^(t/2 - 127), the root of 2 rounded to float32. The block's largest is its
// scale; a code's low bits say how many half octaves below it a magnitude is, its top bit the sign.
template <unsigned Bits>
struct Level : Packed<Level<Bits>, Bits> {
  static constexpr std::uint32_t kLowest = (1u << (Bits - 1)) - 1;

  static std::uint32_t half_octave(std::uint32_t magnitude) {
    return 2 * (magnitude >> 23) + ((magnitude & kMantissa) != 0 ? 1 : 0);
  }
  static std::uint16_t scale_of(std::uint32_t largest) {
    return static_cast<std::uint16_t>(half_octave(largest));
  }
  static bool valid(std::uint16_t scale) { return scale >= 2 && scale <= 509; }

  static Coded code(std::uint32_t bits, std::uint16_t scale) {
    const std::uint32_t magnitude = bits & ~kFloatSign, half = half_octave(magnitude), below = scale - half;
    const std::uint32_t wrong = (value_of(half) ^ magnitude) | (half < 2 ? 1u : 0u) | (below & ~kLowest);
    return {(below & kLowest) | (bits >> 31) << (Bits - 1), wrong};
  }
  static Valued decode(std::uint32_t code, std::uint16_t scale) {
    const std::uint32_t half = scale - (code & kLowest);
    const std::uint32_t sign = code >> (Bits - 1) << 31;
    return {sign | value_of(half), static_cast<std::int32_t>(half) < 2 ? 1u : 0u};
  }

 private:
  static std::uint32_t value_of(std::uint32_t half) { return half >> 1 << 23 | ((0 - (half & 1)) & kSqrt2); }
};

// One magnitude, the upper 16 bits of a positive float32; a code is the sign.
struct Sign : Packed<Sign, 1> {
  static std::uint16_t scale_of(std::uint32_t largest) { return static_cast<std::uint16_t>(largest >> 16); }
  static bool valid(std::uint16_t scale) { return scale >= 0x0080 && scale < 0x7f80; }

  static Coded code(std::uint32_t bits, std::uint16_t scale) {
    return {bits >> 31, (bits & ~kFloatSign) ^ static_cast<std::uint32_t>(scale) << 16};
  }
  static Valued decode(std::uint32_t code, std::uint16_t scale) {
    return {code << 31 | static_cast<std::uint32_t>(scale) << 16, 0};
  }
};

template <class Visit>
auto with_format(Codec codec, const Visit& visit) {
  switch (codec) {
    case Codec::kInt8:
      return visit(Int8());
    case Codec::kLevel4:
      return visit(Level<4>());
    case Codec::kLevel3:
      return visit(Level<3>());
    case Codec::kLevel2:
      return visit(Level<2>());
    default:
      return visit(Sign());
  }
}

std::uint32_t largest_magnitude(std::span<const float> values) {
  return vectorised(
      [](std::span<const float> all) DGS_WIRE_INLINE {
        std::uint32_t largest = 0;  // the order of positive floats is that of their bits
        for (const float value : all) {
          largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & ~kFloatSign);
        }
        return largest;
      },
      values);
}

// `block` is the values from the place `at` on.
Status unsendable(std::span<const float> block, std::size_t at) {
  for (std::size_t i = 0; i < block.size(); ++i) {
    if (!is_finite(std::bit_cast<std::uint32_t>(block[i])))
      return fail(Code::kBadValue, "values", at + i, "the value at this position is not finite");
  }
  return fail(
      Code::kNotRepresentable, "values", at,
      "the " + std::to_string(block.size()) +
          " values from this position on are not numbers of one scale of the codec; quantise before packing");
}

// Those of a block's slots that are not zero, in place or in `room`.
std::span<const float> nonzero(std::span<const float> slots, float* room) {
  if (count_nonzero(slots) == slots.size()) return slots;
  return {room, copy_nonzero(slots, slots, room)};
}

template <class Format>
Status pack_as(Codec codec, std::span<const float> slots, Bytes table, Bytes codes) {
  float room[kValueBlock];
  std::size_t at = 0;
  std::uint8_t *entry = table.data(), *to = codes.data();
  for (std::size_t i = 0; i < slots.size(); i += kValueBlock) {
    const auto block = nonzero(slots.subspan(i, std::min(kValueBlock, slots.size() - i)), room);
    if (block.empty()) continue;
    const std::uint32_t largest = largest_magnitude(block);
    const std::uint16_t scale = Format::scale_of(largest);
    if (!is_finite(largest) || !Format::valid(scale) || !Format::pack(block, scale, to)) {
      return unsendable(block, at);
    }
    entry[0] = static_cast<std::uint8_t>(block.size());
    std::memcpy(entry + 1, &scale, table_bytes(codec) - 1);
    entry += table_bytes(codec);
    to += code_bytes(codec, block.size());
    at += block.size();
  }
  return {};
}

}  // namespace

bool valid_scale(Codec codec, std::uint16_t scale) {
  return with_format(codec, [&](auto format) { return decltype(format)::valid(scale); });
}

Status pack_blocks(Codec codec, std::span<const float> slots, Bytes table, Bytes codes) {
  return with_format(codec,
                     [&](auto format) { return pack_as<decltype(format)>(codec, slots, table, codes); });
}

ValueBlock read_table_entry(Codec codec, const std::uint8_t* entry) {
  if (codec == Codec::kInt8) return {entry[0], entry[1]};
  return {entry[0], load_le<std::uint16_t>(entry + 1)};
}

bool unpack_block(Codec codec, const ValueBlock& block, ConstBytes codes, float* values) {
  return with_format(codec, [&](auto format) {
    return decltype(format)::unpack(codes, block.scale, {values, block.count});
  });
}

}  // namespace dgs::wire
