// SPDX-License-Identifier: Apache-2.0
// Loops without branches, which the compiler makes vectors of: the larger ones where the processor has them.
#pragma once

#include <type_traits>

#if defined(__x86_64__)
#define DGS_WIRE_VECTORS __attribute__((target("avx2,bmi2")))
#else
#define DGS_WIRE_VECTORS
#endif
// Of a lambda: so that its loops are compiled for whom they are inlined into.
#define DGS_WIRE_INLINE __attribute__((always_inline))

namespace dgs::wire {

// Whether functions that are marked DGS_WIRE_VECTORS may be called here.
inline bool vectors_here() {
#if defined(__x86_64__)
  static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
  return found;
#else
  return false;
#endif
}

template <class Loop, class... Args>
DGS_WIRE_VECTORS auto in_vectors(const Loop& loop, Args... args) {
  return loop(args...);
}

// What `loop`, a lambda that is marked DGS_WIRE_INLINE, returns: the same either way. It captures nothing:
// bytes that it writes could be what it captured, for all that the compiler knows.
template <class Loop, class... Args>
auto vectorised(const Loop& loop, Args... args) {
  static_assert(std::is_empty_v<Loop>);
  return vectors_here() ? in_vectors(loop, args...) : loop(args...);
}

}  // namespace dgs::wire
