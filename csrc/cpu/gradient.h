// SPDX-License-Identifier: Apache-2.0
// The worker's accumulations over a block of one segment, for each type of gradient. Free of torch.
#pragma once

#include <cstdint>

#include "common/formulas.h"
#include "common/segments.h"

namespace dgs::cpu {

// A 16-bit pattern, told apart by type.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float widened(float x) { return x; }
inline float widened(Half x) { return from_float16(x.bits); }
inline float widened(BFloat16 x) { return from_bfloat16(x.bits); }

// Calls body(pointer to the gradient's elements from `begin`) with the pointer's type; the gradient is not
// kNone.
template <class Body>
void with_gradient(const Gradient& gradient, int64_t begin, const Body& body) {
  switch (gradient.type) {
    case GradientType::kFloat32:
      return body(static_cast<const float*>(gradient.data) + begin);
    case GradientType::kFloat16:
      return body(static_cast<const Half*>(gradient.data) + begin);
    case GradientType::kBFloat16:
      return body(static_cast<const BFloat16*>(gradient.data) + begin);
    case GradientType::kNone:
      return;
  }
}

// u = v + lr * g
template <class T>
void add_velocity(const T* __restrict grad, const float* __restrict w, const float* __restrict v,
                  float* __restrict u, int64_t n, float lr, float weight_decay) {
  for (int64_t i = 0; i < n; ++i) {
    u[i] = accumulated(v[i], lr, decayed(widened(grad[i]), weight_decay, w[i]));
  }
}

// q = lr * g
template <class T>
void scale_gradient(const T* __restrict grad, const float* __restrict w, float* __restrict q, int64_t n,
                    float lr, float weight_decay) {
  for (int64_t i = 0; i < n; ++i) q[i] = mul_rn(lr, decayed(widened(grad[i]), weight_decay, w[i]));
}

struct DgcRates {
  float lr, weight_decay, momentum, grad_scale;
  bool nesterov;
};

// u_out = m * u + g;  r_out = r + lr * update
template <class T>
void add_dgc(const T* __restrict grad, const float* __restrict w, const float* __restrict u,
             const float* __restrict r, float* __restrict u_out, float* __restrict r_out, int64_t n,
             const DgcRates& rates) {
  const auto [lr, weight_decay, momentum, grad_scale, nesterov] = rates;
  for (int64_t i = 0; i < n; ++i) {
    const float g = decayed(mul_rn(widened(grad[i]), grad_scale), weight_decay, w[i]);
    const float velocity = dgc_velocity(u[i], momentum, g);
    u_out[i] = velocity;
    r_out[i] = accumulated(r[i], lr, dgc_update(velocity, momentum, g, nesterov));
  }
}

}  // namespace dgs::cpu
