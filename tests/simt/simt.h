// SPDX-License-Identifier: Apache-2.0
// CUDA's spelling for the host compiler: the kernels of csrc/cuda include this file where there is no nvcc,
// and run on the CPU. Device code declares shared memory through SIMT_SHARED and SIMT_DYNAMIC_SHARED. Only
// what every architecture since 7.0 has. See README.md.
#pragma once
#if defined(__CUDACC__)
#error "simt.h is for the host compiler only"
#endif

#include <cstdint>
#include <source_location>
#include <tuple>
#include <utility>

#include "atomics.h"
#include "scheduler.h"
#include "vectors.h"

namespace simt {

// `shared`: bytes of dynamic shared memory.
template <class... P, class... A>
void launch(dim3 grid, dim3 block, size_t shared, void (*kernel)(P...), A&&... arguments) {
  std::tuple<P...> bound(std::forward<A>(arguments)...);
  auto call = [&bound, kernel] { std::apply(kernel, bound); };
  run_grid(grid, block, shared, call);
}
template <class... P, class... A>
void launch(dim3 grid, dim3 block, void (*kernel)(P...), A&&... arguments) {
  launch(grid, block, size_t{0}, kernel, std::forward<A>(arguments)...);
}

inline char dynamic_shared_key = 0;

inline int lane() { return static_cast<int>(current->linear % kWarp); }

// What a shuffle of `width` lanes reads: `source` counts from the first lane of the warp; outside the segment
// of the calling lane it gets its own value.
template <class T>
T shuffle(unsigned mask, T value, int source, int width, const std::source_location& at) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0)
    fail("shuffle: the width is not a power of two up to 32", at.file_name(), at.line());
  const int first = lane() & ~(width - 1);
  const bool inside = source >= first && source < first + width;
  return from_bits<T>(warp_collective(Collective::kShuffle, mask, to_bits(value),
                                      static_cast<unsigned>(inside ? source : lane()), at));
}

}  // namespace simt

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// A lambda's static is one per declaration (and per instantiation of a template), as a __shared__ variable
// is.
#define SIMT_SHARED(T, name, N)                                                          \
  T(&name)                                                                               \
  [N] = *reinterpret_cast<T(*)[N]>([]() -> void* {                                       \
    static char key;                                                                     \
    return ::simt::shared_array(&key, sizeof(T) * (N), std::source_location::current()); \
  }())
#define SIMT_DYNAMIC_SHARED(T, name)                    \
  T* const name = static_cast<T*>(::simt::shared_array( \
      &::simt::dynamic_shared_key, ::simt::current->block->dynamic_bytes, std::source_location::current()))

#define threadIdx (::simt::current->thread)
#define blockIdx (::simt::current->block_index)
#define blockDim (::simt::current->block_shape)
#define gridDim (::simt::current->grid_shape)
constexpr int warpSize = 32;

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
inline void __syncwarp(unsigned mask = 0xffffffffu, const Place& at = Place::current()) {
  simt::warp_collective(simt::Collective::kSync, mask, 0, 0, at);
}
inline unsigned __ballot_sync(unsigned mask, int p, const Place& at = Place::current()) {
  return static_cast<unsigned>(simt::warp_collective(simt::Collective::kBallot, mask, p != 0, 0, at));
}
inline int __any_sync(unsigned mask, int p, const Place& at = Place::current()) {
  return static_cast<int>(simt::warp_collective(simt::Collective::kAny, mask, p != 0, 0, at));
}
inline int __all_sync(unsigned mask, int p, const Place& at = Place::current()) {
  return static_cast<int>(simt::warp_collective(simt::Collective::kAll, mask, p != 0, 0, at));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, const Place& at = Place::current()) {
  return static_cast<unsigned>(
      simt::warp_collective(simt::Collective::kMatch, mask, simt::to_bits(value), 0, at));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, const Place& at = Place::current()) {
  const int first = simt::lane() & ~(width - 1);
  return simt::shuffle(mask, value, first + (source & (width - 1)), width, at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, const Place& at = Place::current()) {
  return simt::shuffle(mask, value, simt::lane() - static_cast<int>(delta), width, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   const Place& at = Place::current()) {
  return simt::shuffle(mask, value, simt::lane() + static_cast<int>(delta), width, at);
}
// Reads a lower segment too, but not a higher one, as CUDA defines it.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, const Place& at = Place::current()) {
  const int source = simt::lane() ^ lanes, end = (simt::lane() & ~(width - 1)) + width;
  return simt::shuffle(mask, value, source < end ? source : simt::lane(), source < end ? 32 : width, at);
}
inline void __nanosleep(unsigned) { simt::give_way(); }

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline int __clzll(long long value) {
  return value == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(value));
}
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline unsigned __brev(unsigned value) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (value >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned __float_as_uint(float x) { return simt::from_bits<unsigned>(simt::to_bits(x)); }
inline int __float_as_int(float x) { return simt::from_bits<int>(simt::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return simt::from_bits<float>(simt::to_bits(x)); }
inline float __int_as_float(int x) { return simt::from_bits<float>(simt::to_bits(x)); }
inline float __fadd_rn(float a, float b) { return a + b; }  // -ffp-contract=off
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

#define SIMT_MIN_MAX(T)                            \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
SIMT_MIN_MAX(float)
#undef SIMT_MIN_MAX
