// SPDX-License-Identifier: Apache-2.0
// W neighbouring elements at a time, W = 4 or 1: the arithmetic of an op is written once, and a block takes
// four elements in one 128-bit access where every array of the segment allows it, single ones elsewhere.
#pragma once

#include <cstdint>

#include "common/segments.h"
#include "cuda/device.cuh"

namespace dgs::cuda {

constexpr int kGroup = 4;  // elements of a 128-bit access

template <int W>
struct Lanes {
  float v[W];
};

template <int W>
__device__ __forceinline__ bool all_finite(const Lanes<W>& x) {
  bool finite_so_far = true;
#pragma unroll
  for (int e = 0; e < W; ++e) finite_so_far = finite_so_far && finite(x.v[e]);
  return finite_so_far;
}

// A pointer out of a table could be to any memory, for all that nvcc knows: this says that it is to global
// memory.
template <class T>
__device__ __forceinline__ T* global(T* p) {
#if defined(__CUDACC__)
  __builtin_assume(__isGlobal(p));
#endif
  return p;
}

// p: 16-byte aligned where W is 4.
template <int W>
__device__ __forceinline__ Lanes<W> load(const float* p) {
  if constexpr (W == kGroup) {
    const float4 x = *reinterpret_cast<const float4*>(global(p));
    return {{x.x, x.y, x.z, x.w}};
  } else {
    return {{*global(p)}};
  }
}

// Four at a time as a stream (__stcs): what is written is not read again soon. It also keeps nvcc from taking
// the store apart, to share it with the path of single elements.
template <int W>
__device__ __forceinline__ void store(float* p, const Lanes<W>& x) {
  if constexpr (W == kGroup)
    __stcs(reinterpret_cast<float4*>(p), make_float4(x.v[0], x.v[1], x.v[2], x.v[3]));
  else
    *global(p) = x.v[0];
}

__device__ __forceinline__ float load_one(const float* p) { return load<1>(p).v[0]; }
__device__ __forceinline__ void store_one(float* p, float x) { store<1>(p, {{x}}); }

__device__ __forceinline__ float widened(uint16_t half, GradientType type) {
  return type == GradientType::kFloat16 ? from_float16(half) : from_bfloat16(half);
}

// Elements i .. i + W of a gradient as float32; its type, not kNone, is the same for a whole block.
template <int W>
__device__ __forceinline__ Lanes<W> load_gradient(const Gradient& gradient, int64_t i) {
  if (gradient.type == GradientType::kFloat32) return load<W>(static_cast<const float*>(gradient.data) + i);
  const uint16_t* const p = static_cast<const uint16_t*>(gradient.data) + i;
  if constexpr (W == kGroup) {
    const ushort4 h = *reinterpret_cast<const ushort4*>(global(p));
    return {{widened(h.x, gradient.type), widened(h.y, gradient.type), widened(h.z, gradient.type),
             widened(h.w, gradient.type)}};
  } else {
    return {{widened(*global(p), gradient.type)}};
  }
}

// Host: how the arrays of one segment lie against the boundaries of 128-bit accesses (64-bit ones for 16-bit
// types).
class Alignment {
 public:
  // The first array decides where groups of four begin; the segment is read in single elements unless the
  // others agree.
  Alignment& add(const void* array, int width) {
    const int past =
        static_cast<int>(reinterpret_cast<uintptr_t>(array) / static_cast<uintptr_t>(width) % kGroup);
    if (shift_ < 0) shift_ = past;
    vector_ = vector_ && past == shift_;
    return *this;
  }
  Alignment& add(const Gradient& gradient) {
    if (gradient.type == GradientType::kNone) return *this;
    return add(gradient.data, gradient.type == GradientType::kFloat32 ? 4 : 2);
  }
  int shift() const { return shift_; }  // elements between a boundary and the first element, 0 to 3
  bool vector() const { return vector_; }

 private:
  int shift_ = -1;
  bool vector_ = true;
};

}  // namespace dgs::cuda
