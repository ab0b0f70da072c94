// SPDX-License-Identifier: Apache-2.0
#include "wire/block_values.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "wire/half.h"

namespace dgs::wire {
namespace {

constexpr std::uint32_t kMantissa = 0x007fffffu;
constexpr std::uint32_t kSqrt2 = 0x003504f3u;  // mantissa of the float32 nearest to the root of 2

struct Coded {
  std::uint32_t code;
  bool exact;
};

// n·2^(scale - 127), |n| <= 127, as n in 8 bits; the largest |n| of a block is 64 or more, or the scale is 1.
struct Int8 {
  static constexpr unsigned kBits = 8;

  static std::uint16_t scale_of(std::uint32_t largest) {
    return static_cast<std::uint16_t>(std::max<std::uint32_t>(largest >> 23, 7) - 6);
  }
  static bool valid(std::uint16_t scale) { return scale >= 1 && scale <= 248; }

  static Coded code(std::uint32_t bits, std::uint16_t scale) {
    const std::uint32_t magnitude = bits & ~kFloatSign, exponent = magnitude >> 23;
    if (exponent < scale) return {0, false};  // below the scale, subnormal or zero
    const std::uint32_t significand = (magnitude & kMantissa) | 0x00800000u, shift = 23 + scale - exponent;
    const std::uint32_t n = significand >> shift;
    const std::uint32_t code = (bits & kFloatSign) != 0 ? 256 - n : n;
    return {code & 0xff, n << shift == significand && n <= 127};
  }
  static bool decode(std::uint32_t code, std::uint16_t scale, std::uint32_t* bits) {
    const bool negative = (code & 0x80) != 0;
    const std::uint32_t n = negative ? 256 - code : code;
    const auto top = static_cast<std::uint32_t>(std::bit_width(n | 1)) - 1;
    *bits = (negative ? kFloatSign : 0) | (scale + top) << 23 | ((n << (23 - top)) & kMantissa);
    return n != 0 && n != 128;
  }
};

// Half octaves: t stands for 2^(t/2 - 127), the root of 2 rounded to float32. The block's largest is its
// scale; a code's low bits say how many half octaves below it a magnitude is, its top bit the sign.
template <unsigned Bits>
struct Level {
  static constexpr unsigned kBits = Bits;
  static constexpr std::uint32_t kSign = 1u << (Bits - 1), kLowest = kSign - 1;

  static std::uint32_t half_octave(std::uint32_t magnitude) {
    return 2 * (magnitude >> 23) + ((magnitude & kMantissa) != 0 ? 1 : 0);
  }
  static std::uint16_t scale_of(std::uint32_t largest) {
    return static_cast<std::uint16_t>(half_octave(largest));
  }
  static bool valid(std::uint16_t scale) { return scale >= 2 && scale <= 509; }

  static Coded code(std::uint32_t bits, std::uint16_t scale) {
    const std::uint32_t magnitude = bits & ~kFloatSign, mantissa = magnitude & kMantissa;
    const std::uint32_t below = scale - half_octave(magnitude);
    const bool exact = (mantissa == 0 || mantissa == kSqrt2) && magnitude >= 0x00800000u && below <= kLowest;
    return {(below & kLowest) | ((bits & kFloatSign) != 0 ? kSign : 0), exact};
  }
  static bool decode(std::uint32_t code, std::uint16_t scale, std::uint32_t* bits) {
    const std::uint32_t below = code & kLowest;
    if (scale < below + 2) return false;
    const std::uint32_t t = scale - below;
    *bits = ((code & kSign) != 0 ? kFloatSign : 0) | (t / 2) << 23 | (t % 2 != 0 ? kSqrt2 : 0);
    return true;
  }
};

// One magnitude, the upper 16 bits of a positive float32; a code is the sign.
struct Sign {
  static constexpr unsigned kBits = 1;

  static std::uint16_t scale_of(std::uint32_t largest) { return static_cast<std::uint16_t>(largest >> 16); }
  static bool valid(std::uint16_t scale) { return scale >= 0x0080 && scale < 0x7f80; }

  static Coded code(std::uint32_t bits, std::uint16_t scale) {
    return {bits >> 31, (bits & ~kFloatSign) == static_cast<std::uint32_t>(scale) << 16};
  }
  static bool decode(std::uint32_t code, std::uint16_t scale, std::uint32_t* bits) {
    *bits = code << 31 | static_cast<std::uint32_t>(scale) << 16;
    return true;
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
  std::uint32_t largest = 0;
  for (const float value : values)
    largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & ~kFloatSign);
  return largest;
}

// Codes are packed eight at a time into as many bytes as a code has bits.
template <class Format>
bool pack_codes(std::span<const float> values, std::uint16_t scale, std::uint8_t* codes) {
  bool exact = true;
  for (std::size_t i = 0; i < values.size(); i += 8) {
    const std::size_t n = std::min<std::size_t>(8, values.size() - i);
    std::uint64_t word = 0;
    for (std::size_t j = 0; j < n; ++j) {
      const Coded coded = Format::code(std::bit_cast<std::uint32_t>(values[i + j]), scale);
      exact &= coded.exact;
      word |= static_cast<std::uint64_t>(coded.code) << (j * Format::kBits);
    }
    const std::size_t bytes = (n * Format::kBits + 7) / 8;
    std::memcpy(codes, &word, bytes);
    codes += bytes;
  }
  return exact;
}

Status unsendable(std::span<const float> values, std::size_t begin, std::size_t count) {
  for (std::size_t i = begin; i < begin + count; ++i) {
    if (!is_finite(std::bit_cast<std::uint32_t>(values[i])))
      return fail(Code::kBadValue, "values", i, "the value at this position is not finite");
  }
  return fail(
      Code::kNotRepresentable, "values", begin,
      "the " + std::to_string(count) +
          " values from this position on are not numbers of one scale of the codec; quantise before packing");
}

template <class Format>
Status pack_as(Codec codec, std::span<const std::uint8_t> counts, std::span<const float> values, Bytes table,
               Bytes codes) {
  std::size_t at = 0;
  std::uint8_t *entry = table.data(), *to = codes.data();
  for (const std::uint8_t count : counts) {
    const auto block = values.subspan(at, count);
    const std::uint32_t largest = largest_magnitude(block);
    const std::uint16_t scale = Format::scale_of(largest);
    if (!is_finite(largest) || !Format::valid(scale) || !pack_codes<Format>(block, scale, to)) {
      return unsendable(values, at, count);
    }
    entry[0] = count;
    std::memcpy(entry + 1, &scale, table_bytes(codec) - 1);
    entry += table_bytes(codec);
    to += code_bytes(codec, count);
    at += count;
  }
  return {};
}

template <class Format>
bool unpack_as(const ValueBlock& block, ConstBytes codes, float* values) {
  constexpr std::uint32_t kMask = (1u << Format::kBits) - 1;
  bool good = true;
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < block.count; ++i) {
    if (i % 8 == 0) word = load_tail(codes, i / 8 * Format::kBits);
    std::uint32_t bits = 0;
    good &= Format::decode(static_cast<std::uint32_t>(word) & kMask, block.scale, &bits);
    word >>= Format::kBits;
    values[i] = std::bit_cast<float>(bits);
  }
  const unsigned used = block.count * Format::kBits % 8;
  return good && (used == 0 || codes.back() >> used == 0);
}

}  // namespace

bool valid_scale(Codec codec, std::uint16_t scale) {
  return with_format(codec, [&](auto format) { return decltype(format)::valid(scale); });
}

std::uint64_t section_bytes(Codec codec, std::span<const std::uint8_t> counts) {
  std::uint64_t bytes = counts.size() * table_bytes(codec);
  for (const std::uint8_t count : counts) bytes += code_bytes(codec, count);
  return bytes;
}

Status pack_blocks(Codec codec, std::span<const std::uint8_t> counts, std::span<const float> values,
                   Bytes table, Bytes codes) {
  return with_format(
      codec, [&](auto format) { return pack_as<decltype(format)>(codec, counts, values, table, codes); });
}

ValueBlock read_table_entry(Codec codec, const std::uint8_t* entry) {
  if (codec == Codec::kInt8) return {entry[0], entry[1]};
  return {entry[0], load_le<std::uint16_t>(entry + 1)};
}

bool unpack_block(Codec codec, const ValueBlock& block, ConstBytes codes, float* values) {
  return with_format(codec, [&](auto format) { return unpack_as<decltype(format)>(block, codes, values); });
}

}  // namespace dgs::wire
