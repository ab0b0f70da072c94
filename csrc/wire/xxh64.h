// SPDX-License-Identifier: Apache-2.0
// XXH64, written from the published description of the algorithm (xxHash specification 0.1.1).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "wire/bytes.h"

namespace dgs::wire {
namespace xxh64_detail {

inline constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87u;
inline constexpr std::uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;
inline constexpr std::uint64_t kPrime3 = 0x165667B19E3779F9u;
inline constexpr std::uint64_t kPrime4 = 0x85EBCA77C2B2AE63u;
inline constexpr std::uint64_t kPrime5 = 0x27D4EB2F165667C5u;

inline std::uint64_t round(std::uint64_t acc, std::uint64_t lane) {
  return std::rotl(acc + lane * kPrime2, 31) * kPrime1;
}

inline std::uint64_t merge(std::uint64_t acc, std::uint64_t lane) {
  return (acc ^ round(0, lane)) * kPrime1 + kPrime4;
}

// Four lanes of 8 bytes per step; `*data` is left at the first byte that did not fill a stripe of 32.
inline std::uint64_t stripes(const std::uint8_t** data, const std::uint8_t* end, std::uint64_t seed) {
  std::uint64_t a = seed + kPrime1 + kPrime2, b = seed + kPrime2, c = seed, d = seed - kPrime1;
  const std::uint8_t* p = *data;
  for (; end - p >= 32; p += 32) {
    a = round(a, load_le<std::uint64_t>(p));
    b = round(b, load_le<std::uint64_t>(p + 8));
    c = round(c, load_le<std::uint64_t>(p + 16));
    d = round(d, load_le<std::uint64_t>(p + 24));
  }
  *data = p;
  const std::uint64_t acc = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
  return merge(merge(merge(merge(acc, a), b), c), d);
}

}  // namespace xxh64_detail

inline std::uint64_t xxh64(ConstBytes bytes, std::uint64_t seed = 0) {
  using namespace xxh64_detail;
  const std::uint8_t* p = bytes.data();
  const std::uint8_t* const end = p + bytes.size();
  std::uint64_t acc = bytes.size() >= 32 ? stripes(&p, end, seed) : seed + kPrime5;
  acc += bytes.size();
  for (; end - p >= 8; p += 8) {
    acc = std::rotl(acc ^ round(0, load_le<std::uint64_t>(p)), 27) * kPrime1 + kPrime4;
  }
  if (end - p >= 4) {
    acc = std::rotl(acc ^ (load_le<std::uint32_t>(p) * kPrime1), 23) * kPrime2 + kPrime3;
    p += 4;
  }
  for (; p != end; ++p) acc = std::rotl(acc ^ (*p * kPrime5), 11) * kPrime1;
  acc = (acc ^ (acc >> 33)) * kPrime2;
  acc = (acc ^ (acc >> 29)) * kPrime3;
  return acc ^ (acc >> 32);
}

}  // namespace dgs::wire
