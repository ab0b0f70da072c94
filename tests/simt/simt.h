// SPDX-License-Identifier: Apache-2.0
// CUDA's spelling for the host compiler: the kernels of csrc/cuda include this file where there is no nvcc,
// and run on the CPU. Device code declares shared memory through SIMT_SHARED. See README.md.
#pragma once
#if defined(__CUDACC__)
#error "simt.h is for the host compiler only"
#endif

#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#include "scheduler.h"

namespace simt {

template <class... P, class... A>
void launch(dim3 grid, dim3 block, void (*kernel)(P...), A&&... arguments) {
  std::tuple<P...> bound(std::forward<A>(arguments)...);
  auto call = [&bound, kernel] { std::apply(kernel, bound); };
  run_grid(grid, block, call);
}

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

// `source` is a lane of the warp; the segments of `width` lanes are separate.
template <class T>
T shuffle(unsigned mask, T value, int source, bool inside) {
  const unsigned self = current->linear % kWarp;
  return from_bits<T>(warp_collective(Collective::kShuffle, mask, to_bits(value),
                                      inside ? static_cast<unsigned>(source) : self));
}
inline int lane() { return static_cast<int>(current->linear % kWarp); }

// Atomics are relaxed on a device: they publish other writes only after a fence.
template <class T, class F>
T read_modify_write(T* address, F change) {
  using Word = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  static_assert(sizeof(T) == sizeof(Word), "atomics are 32 or 64 bits wide");
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

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// A lambda's static is one per declaration (and per instantiation of a template), as a __shared__ variable
// is.
#define SIMT_SHARED(T, name, N)                         \
  T(&name)                                              \
  [N] = *reinterpret_cast<T(*)[N]>([]() -> void* {      \
    static char key;                                    \
    return ::simt::shared_array(&key, sizeof(T) * (N)); \
  }())

#define threadIdx (::simt::current->thread)
#define blockIdx (::simt::current->block_index)
#define blockDim (::simt::current->block_shape)
#define gridDim (::simt::current->grid_shape)

using Place = std::source_location;
inline void __syncthreads(const Place& at = Place::current()) {
  simt::syncthreads(simt::Barrier::kPlain, 0, at);
}
inline int __syncthreads_count(int p, const Place& at = Place::current()) {
  return simt::syncthreads(simt::Barrier::kCount, p, at);
}
inline int __syncthreads_and(int p, const Place& at = Place::current()) {
  return simt::syncthreads(simt::Barrier::kAnd, p, at);
}
inline int __syncthreads_or(int p, const Place& at = Place::current()) {
  return simt::syncthreads(simt::Barrier::kOr, p, at);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  simt::warp_collective(simt::Collective::kSync, mask, 0, 0);
}
inline unsigned __ballot_sync(unsigned mask, int p) {
  return static_cast<unsigned>(simt::warp_collective(simt::Collective::kBallot, mask, p != 0, 0));
}
inline int __any_sync(unsigned mask, int p) {
  return static_cast<int>(simt::warp_collective(simt::Collective::kAny, mask, p != 0, 0));
}
inline int __all_sync(unsigned mask, int p) {
  return static_cast<int>(simt::warp_collective(simt::Collective::kAll, mask, p != 0, 0));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  return simt::shuffle(mask, value, source & 31, true);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta) {
  const int source = simt::lane() - static_cast<int>(delta);
  return simt::shuffle(mask, value, source, source >= 0);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  const int source = simt::lane() + static_cast<int>(delta);
  return simt::shuffle(mask, value, source, source < 32);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  const int source = simt::lane() ^ lanes;
  return simt::shuffle(mask, value, source, source < 32);
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline void __threadfence() { simt::fence(); }

template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return simt::read_modify_write(p, [v](T old) { return static_cast<T>(old + v); });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  return simt::read_modify_write(p, [v](T old) { return v < old ? v : old; });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return simt::read_modify_write(p, [v](T old) { return old < v ? v : old; });
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return simt::read_modify_write(p, [v](T old) { return static_cast<T>(old | v); });
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return simt::read_modify_write(p, [v](T) { return v; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return simt::read_modify_write(p, [expected, v](T old) { return old == expected ? v : old; });
}
