// SPDX-License-Identifier: Apache-2.0
#include "wire/value_codec.h"

#include <bit>
#include <cstdio>
#include <string>

#include "wire/half.h"
#include "wire/vectors.h"

namespace dgs::wire {
namespace {

struct Float32 {
  using Stored = std::uint32_t;
  static bool pack(std::uint32_t bits, Stored* stored) {
    *stored = bits;
    return true;
  }
  static std::uint32_t unpack(Stored stored) { return stored; }
};

struct Float16 {
  using Stored = std::uint16_t;
  static bool pack(std::uint32_t bits, Stored* stored) { return float_to_half(bits, stored); }
  static std::uint32_t unpack(Stored stored) { return half_to_float(stored); }
};

struct Bfloat16 {
  using Stored = std::uint16_t;
  static bool pack(std::uint32_t bits, Stored* stored) { return float_to_bfloat(bits, stored); }
  static std::uint32_t unpack(Stored stored) { return bfloat_to_float(stored); }
};

std::string decimal(float value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", static_cast<double>(value));
  return text;
}

template <class Format>
Status unsendable(std::span<const float> values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(values[i]);
    typename Format::Stored stored;
    if (!is_finite(bits))
      return fail(Code::kBadValue, "values", i, "the value at this position is not finite");
    if (!Format::pack(bits, &stored)) {
      return fail(Code::kNotRepresentable, "values", i,
                  "the value at this position, " + decimal(values[i]) +
                      ", is not a number of the codec; quantise before packing");
    }
  }
  return {};
}

// No branch per value: one flag tells whether to look for the culprit.
template <class Format>
Status pack_as(std::span<const float> values, Bytes packed) {
  const std::uint32_t bad = vectorised(
      [](std::span<const float> from, std::uint8_t* to) DGS_WIRE_INLINE {
        std::uint32_t any = 0;
        for (std::size_t i = 0; i < from.size(); ++i) {
          const auto bits = std::bit_cast<std::uint32_t>(from[i]);
          typename Format::Stored stored;
          any |= (Format::pack(bits, &stored) ? 0u : 1u) | (is_finite(bits) ? 0u : 1u);
          store_le(to + i * sizeof(stored), stored);
        }
        return any;
      },
      values, packed.data());
  return bad == 0 ? Status{} : unsendable<Format>(values);
}

Status forbidden(std::span<const float> values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(values[i]);
    if (!is_finite(bits))
      return fail(Code::kBadValue, "values", i, "the value at this position is not finite");
    if (is_zero(bits)) return fail(Code::kBadValue, "values", i, "the value at this position is zero");
  }
  return {};
}

template <class Format>
Status unpack_as(ConstBytes packed, bool allow_zero, std::span<float> values) {
  using Stored = typename Format::Stored;
  const std::uint32_t bad = vectorised(
      [](const std::uint8_t* from, std::uint32_t zero_is_bad, std::span<float> to) DGS_WIRE_INLINE {
        std::uint32_t any = 0;
        for (std::size_t i = 0; i < to.size(); ++i) {
          const std::uint32_t bits = Format::unpack(load_le<Stored>(from + i * sizeof(Stored)));
          any |= (is_finite(bits) ? 0u : 1u) | (is_zero(bits) ? zero_is_bad : 0u);
          to[i] = std::bit_cast<float>(bits);
        }
        return any;
      },
      packed.data(), allow_zero ? 0u : 1u, values);
  return bad == 0 ? Status{} : forbidden(values);
}

}  // namespace

Status pack_values(Codec codec, std::span<const float> values, Bytes packed) {
  switch (codec) {
    case Codec::kFloat32:
      return pack_as<Float32>(values, packed);
    case Codec::kFloat16:
      return pack_as<Float16>(values, packed);
    case Codec::kBfloat16:
      return pack_as<Bfloat16>(values, packed);
    default:
      break;
  }
  return fail(Code::kArgument, "codec", static_cast<std::uint64_t>(codec), "not one of a width per value");
}

Status pack_range(Codec codec, std::span<const float> values, std::size_t begin, Bytes packed) {
  const std::size_t count = packed.size() / value_bytes(codec);
  Status status = pack_values(codec, values.subspan(begin, count), packed);
  if (!status.ok()) status.value += begin;
  return status;
}

Status unpack_values(Codec codec, ConstBytes packed, bool allow_zero, std::span<float> values) {
  switch (codec) {
    case Codec::kFloat32:
      return unpack_as<Float32>(packed, allow_zero, values);
    case Codec::kFloat16:
      return unpack_as<Float16>(packed, allow_zero, values);
    case Codec::kBfloat16:
      return unpack_as<Bfloat16>(packed, allow_zero, values);
    default:
      break;
  }
  return fail(Code::kBadCodec, "codec", static_cast<std::uint64_t>(codec), "not one of a width per value");
}

}  // namespace dgs::wire
