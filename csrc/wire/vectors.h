// SPDX-License-Identifier: Apache-2.0
// Loops without branches, which the compiler makes vectors of: the larger ones where the processor has them.
#pragma once

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

template <class Loop>
DGS_WIRE_VECTORS auto in_vectors(const Loop& loop) {
  return loop();
}

// What `loop`, which is marked DGS_WIRE_INLINE, returns: the same either way.
template <class Loop>
auto vectorised(const Loop& loop) {
  return vectors_here() ? in_vectors(loop) : loop();
}

}  // namespace dgs::wire
