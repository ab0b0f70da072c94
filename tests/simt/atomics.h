// SPDX-License-Identifier: Apache-2.0
// Fences and atomics. An atomic is relaxed, as on a device: it publishes other writes only after a fence.
#pragma once

#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

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
T read_modify_write(T* address, const std::source_location& place, F change) {
  using Word = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  static_assert(sizeof(T) == sizeof(Word), "atomics are 32 or 64 bits wide");
  check_aligned(reinterpret_cast<Word*>(address), place);
  maybe_preempt();
  Word* const word = reinterpret_cast<Word*>(address);
  Word old = __atomic_load_n(word, __ATOMIC_RELAXED), next;
  bool stored;
  do {
    next = static_cast<Word>(to_bits(change(from_bits<T>(old))));
    stored = current->fenced
                 ? __atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)
                 : __atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
  } while (!stored);
  maybe_preempt();
  return from_bits<T>(old);
}
SIMT_UNSEEN inline void fence() { current->fenced = true; }

}  // namespace simt

inline void __threadfence() { simt::fence(); }
inline void __threadfence_block() { simt::fence(); }
inline void __threadfence_system() { simt::fence(); }

#define SIMT_ATOMIC(name, next)                                                         \
  template <class T>                                                                    \
  T name(T* p, std::type_identity_t<T> v,                                               \
         const std::source_location& at = std::source_location::current()) {            \
    return simt::read_modify_write(p, at, [v](T old) { return static_cast<T>(next); }); \
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
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v,
            const std::source_location& at = std::source_location::current()) {
  return simt::read_modify_write(p, at, [expected, v](T old) { return old == expected ? v : old; });
}
