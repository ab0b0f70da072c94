// SPDX-License-Identifier: Apache-2.0
// The worker's steps: the sources that accumulate a gradient while they are selected from. Free of torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/candidates.h"
#include "cpu/chunks.h"
#include "cpu/gradient.h"

namespace dgs::cpu {

// u = v + lr * g of `dgs` and `gd`.
struct VelocitySource {
  const Gradient* grads;  // [segments], as the rest
  const float* const* weights;
  const float* const* velocity;
  float* const* velocity_out;
  const float* lr;
  const float* weight_decay;

  void compute(int64_t s, int64_t begin, int64_t n, float* u) const {
    const float *w = weights[s] + begin, *v = velocity[s] + begin;
    if (grads[s].type == GradientType::kNone) {
      std::copy_n(v, n, u);
      return;
    }
    with_gradient(grads[s], begin, [&](auto* g) { add_velocity(g, w, v, u, n, lr[s], weight_decay[s]); });
  }
  const float* peek(int64_t s, int64_t begin, int64_t n, float* scratch) const {
    compute(s, begin, n, scratch);
    return scratch;
  }
  const float* store(int64_t s, int64_t begin, int64_t n, float*, bool&) const {
    compute(s, begin, n, velocity_out[s] + begin);
    return velocity_out[s] + begin;
  }
  const float* load(int64_t s, int64_t begin, int64_t, float*) const { return velocity_out[s] + begin; }
};

// u = m * u + g, and what is selected from: r = r + lr * u.
struct DgcSource {
  VelocitySource step;           // gradient, rates and the velocity u
  const float* const* residual;  // [segments], as the rest
  float* const* residual_out;
  const float* momentum;
  float grad_scale;
  bool nesterov;

  void compute(int64_t s, int64_t begin, int64_t n, float* u_out, float* r_out) const {
    const float *u = step.velocity[s] + begin, *r = residual[s] + begin;
    if (step.grads[s].type == GradientType::kNone) {
      std::copy_n(u, n, u_out);
      std::copy_n(r, n, r_out);
      return;
    }
    const float* w = step.weights[s] + begin;
    const DgcRates rates{step.lr[s], step.weight_decay[s], momentum[s], grad_scale, nesterov};
    with_gradient(step.grads[s], begin, [&](auto* g) { add_dgc(g, w, u, r, u_out, r_out, n, rates); });
  }
  const float* peek(int64_t s, int64_t begin, int64_t n, float* scratch) const {
    float u[kBlock];
    compute(s, begin, n, u, scratch);
    return scratch;
  }
  const float* store(int64_t s, int64_t begin, int64_t n, float*, bool& finite) const {
    float *u_out = step.velocity_out[s] + begin, *r_out = residual_out[s] + begin;
    compute(s, begin, n, u_out, r_out);
    finite &= all_finite(u_out, n);
    return r_out;
  }
  const float* load(int64_t s, int64_t begin, int64_t, float*) const { return residual_out[s] + begin; }
};

// q = lr * g for every element, 0 without a gradient; nnz[s] = the segment's size, or -1 if a q is not
// finite.
template <class Pool>
void step_dense(const Gradient* grads, const float* const* weights, float* const* out, const float* lr,
                const float* weight_decay, const Segments& segments, int64_t* nnz, const Pool& pool) {
  const auto ranges = all_ranges(segments);
  std::vector<char> finite(ranges.size());
  pool(ranges.size(), [&](int64_t i) {
    const auto [s, begin, end] = ranges[i];
    const int64_t n = end - begin;
    const float* w = weights[s] + begin;
    float* q = out[s] + begin;
    if (grads[s].type == GradientType::kNone) std::fill_n(q, n, 0.0f);
    const float rate = lr[s], decay = weight_decay[s];
    with_gradient(grads[s], begin, [&](auto* g) { scale_gradient(g, w, q, n, rate, decay); });
    finite[i] = all_finite(q, n);
  });
  for (int64_t s = 0; s < segments.count; ++s) nnz[s] = segments.size(s);
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (!finite[i]) nnz[ranges[i].segment] = -1;
  }
}

}  // namespace dgs::cpu
