// SPDX-License-Identifier: Apache-2.0
// The arithmetic of one element, written once for the host, CUDA and the emulator. Every rounding is stated:
// nothing here may be contracted into an FMA (host: -ffp-contract=off; device: the _rn intrinsics, which are
// never contracted). Always inlined: one program may hold this code for several instruction sets. What is
// written for a type T is also compiled for vectors of floats (cpu/vector_*.h).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define DGS_HD __host__ __device__ __forceinline__
#else
#define DGS_HD [[gnu::always_inline]] inline
#endif

namespace dgs {

// Wire codecs of a value; the numbers are those of docs/wire_format.md.
enum class Codec : int64_t { kFloat32 = 1, kFloat16 = 2, kBFloat16 = 3 };

DGS_HD float add_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}
DGS_HD float sub_rn(float a, float b) { return add_rn(a, -b); }
DGS_HD float mul_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

DGS_HD uint32_t float_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
DGS_HD float bits_float(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

// |x| as an integer that orders like |x|; NaN above infinity.
DGS_HD uint32_t magnitude(float x) { return float_bits(x) & 0x7fffffffu; }
DGS_HD bool finite(float x) { return magnitude(x) < 0x7f800000u; }

// Results below 2^-126 become +0, so that a process that flushes denormals cannot drift from one that does
// not.
DGS_HD float flush(float x) { return magnitude(x) < 0x00800000u ? 0.0f : x; }

// A 16-bit pattern, told apart by type.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// Half precision gradients as float32, exactly: float16's subnormals (multiples of 2^-24) are normal numbers
// there.
DGS_HD float from_float16(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  if (exponent == 0) return bits_float(sign | float_bits(mul_rn(static_cast<float>(mantissa), 0x1p-24f)));
  return bits_float(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112u) << 23) | mantissa << 13);
}
DGS_HD float from_bfloat16(uint16_t h) { return bits_float(static_cast<uint32_t>(h) << 16); }

// g = fl(grad + fl(weight_decay * w)); without weight decay the gradient itself, bit for bit.
template <class T>
DGS_HD T plus_decay(T grad, T weight_decay, T w) {
  return add_rn(grad, mul_rn(weight_decay, w));
}
DGS_HD float decayed(float grad, float weight_decay, float w) {
  return weight_decay == 0.0f ? grad : plus_decay(grad, weight_decay, w);
}
// u = fl(v + fl(lr * g)): the new velocity of `dgs`, the new residual of `gd`.
template <class T>
DGS_HD T accumulated(T v, T lr, T g) {
  return add_rn(v, mul_rn(lr, g));
}
// q = fl(lr * g), flushed: the dense update of `asgd`, as float32 goes on the wire.
template <class T>
DGS_HD T scaled(T lr, T g) {
  return flush(mul_rn(lr, g));
}
// v = fl(u - fl(keep * q)), keep = fl(1 - m): SAMomentum in one buffer.
template <class T>
DGS_HD T kept(T u, T keep, T q) {
  return sub_rn(u, mul_rn(keep, q));
}

// DGC: u = fl(fl(m * u) + g); what enters the residual is lr * u, or with Nesterov lr * (g + m * u_new).
template <class T>
DGS_HD T dgc_velocity(T u, T momentum, T g) {
  return add_rn(mul_rn(momentum, u), g);
}
template <class T>
DGS_HD T dgc_update(T u_new, T momentum, T g, bool nesterov) {
  return nesterov ? add_rn(g, mul_rn(momentum, u_new)) : u_new;
}

// x + q and x - q on parameters and mirrors, the same on server and worker.
DGS_HD float added(float x, float q) { return flush(add_rn(x, q)); }

// float32 -> bfloat16 -> float32, to nearest even, saturated at the largest finite bfloat16.
DGS_HD float round_bfloat16(float x) {
  const uint32_t u = float_bits(x), m = u & 0x7fffffffu;
  if (m > 0x7f800000u) return x;  // NaN stays NaN
  const uint32_t r = (m + 0x7fffu + ((m >> 16) & 1u)) & 0xffff0000u;
  return bits_float((u & 0x80000000u) | (r >= 0x7f800000u ? 0x7f7f0000u : r));
}
// float32 -> float16 -> float32, to nearest even, saturated at 65504; half denormals are multiples of 2^-24.
DGS_HD float round_float16(float x) {
  const uint32_t u = float_bits(x), m = u & 0x7fffffffu, sign = u & 0x80000000u;
  if (m > 0x7f800000u) return x;
  if (m < 0x38800000u) {  // below 2^-14: adding 0.5 rounds to a multiple of 2^-24
    const float r = sub_rn(add_rn(bits_float(m), 0.5f), 0.5f);
    return bits_float(sign | float_bits(r));
  }
  const uint32_t r = (m + 0xfffu + ((m >> 13) & 1u)) & 0xffffe000u;
  return bits_float(sign | (r > 0x477fe000u ? 0x477fe000u : r));
}
DGS_HD float quantized(float x, Codec codec) {
  const float r = codec == Codec::kFloat16    ? round_float16(x)
                  : codec == Codec::kBFloat16 ? round_bfloat16(x)
                                              : x;
  return flush(r);
}

}  // namespace dgs
