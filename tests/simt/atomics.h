// SPDX-License-Identifier: Apache-2.0
// Fences and atomics. An atomic is relaxed, as on a device: it publishes other writes only after a fence.
#pragma once

#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "race.h"
#include "vectors.h"

namespace simt {

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a register of at most 64 bits");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T, class F>
SIMT_UNSEEN T read_modify_write(T* address, const std::source_location& place, F change) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics are 32 or 64 bits wide");
  check_aligned(address, place);
  maybe_preempt();
  if constexpr (kRaces) races.atomic(*current, address, sizeof(T), __builtin_return_address(0));
  T old;
  std::memcpy(&old, address, sizeof old);  // one OS thread: nothing comes between
  const T next = change(old);
  std::memcpy(address, &next, sizeof next);
  maybe_preempt();
  return old;
}
SIMT_UNSEEN inline void fence() {
  if constexpr (kRaces) races.fence(*current);
}

}  // namespace simt

inline void __threadfence() { simt::fence(); }
inline void __threadfence_system() { simt::fence(); }

#define SIMT_ATOMIC(name, next)                                                                            \
  template <class T>                                                                                       \
  __attribute__((always_inline)) inline T name(                                                            \
      T* p, std::type_identity_t<T> v, const std::source_location& at = std::source_location::current()) { \
    return simt::read_modify_write(p, at, [v](T old) { return static_cast<T>(next); });                    \
  }
SIMT_ATOMIC(atomicAdd, old + v)
SIMT_ATOMIC(atomicSub, old - v)
SIMT_ATOMIC(atomicMin, v < old ? v : old)
SIMT_ATOMIC(atomicMax, old < v ? v : old)
SIMT_ATOMIC(atomicAnd, old& v)
SIMT_ATOMIC(atomicOr, old | v)
SIMT_ATOMIC(atomicXor, old ^ v)
SIMT_ATOMIC(atomicExch, (static_cast<void>(old), v))
SIMT_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
#undef SIMT_ATOMIC
template <class T>
__attribute__((always_inline)) inline T atomicCAS(
    T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v,
    const std::source_location& at = std::source_location::current()) {
  return simt::read_modify_write(p, at, [expected, v](T old) { return old == expected ? v : old; });
}
