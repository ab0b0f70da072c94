// SPDX-License-Identifier: Apache-2.0
// The workers' steps. Those of the sparse methods are what the first pass of the selection produces: it
// writes the new state and counts its magnitudes while they are in registers; the later passes read the state
// that was written.
#pragma once

#include "cuda/plan.h"

namespace dgs::cuda {

// Element i of a gradient as float32; the type is the same for a whole block.
__device__ __forceinline__ float gradient_at(const Gradient& gradient, int64_t i) {
  if (gradient.type == GradientType::kFloat32) return static_cast<const float*>(gradient.data)[i];
  const uint16_t half = static_cast<const uint16_t*>(gradient.data)[i];
  return gradient.type == GradientType::kFloat16 ? from_float16(half) : from_bfloat16(half);
}

// fl(grad + fl(weight_decay * w)); the weights are not read without weight decay.
__device__ __forceinline__ float decayed_at(float grad, float weight_decay, const float* weight, int64_t i) {
  return weight_decay == 0.0f ? grad : decayed(grad, weight_decay, weight[i]);
}

// `dgs` and `gd`: u = v + lr * g.
struct VelocityStep {
  Gradient gradient;
  const float* weight;    // [n]
  const float* velocity;  // [n]
  float* velocity_out;    // [n]
  float lr, weight_decay;

  __device__ float produce(int64_t i, bool&) const {
    float u = velocity[i];
    if (gradient.type != GradientType::kNone)
      u = accumulated(u, lr, decayed_at(gradient_at(gradient, i), weight_decay, weight, i));
    velocity_out[i] = u;
    return u;
  }
  __device__ float value(int64_t i) const { return velocity_out[i]; }
};

// `dgc`: u = m * u + g, r += lr * u; the selection is from r, and u has to be finite as well.
struct DgcStep {
  Gradient gradient;
  const float* weight;    // [n]
  const float* velocity;  // [n]
  const float* residual;  // [n]
  float* velocity_out;    // [n]
  float* residual_out;    // [n]
  float lr, weight_decay, momentum, grad_scale;
  bool nesterov;

  __device__ float produce(int64_t i, bool& bad) const {
    float u = velocity[i], r = residual[i];
    if (gradient.type != GradientType::kNone) {
      const float g = decayed_at(mul_rn(gradient_at(gradient, i), grad_scale), weight_decay, weight, i);
      u = dgc_velocity(u, momentum, g);
      r = accumulated(r, lr, dgc_update(u, momentum, g, nesterov));
    }
    velocity_out[i] = u;
    residual_out[i] = r;
    bad |= !finite(u);
    return r;
  }
  __device__ float value(int64_t i) const { return residual_out[i]; }
};

// `asgd`: q = lr * g, dense; no gradient is a zero.
struct DenseStep {
  Gradient gradient;
  const float* weight;  // [n]
  float* out;           // [n]
  float lr, weight_decay;

  __device__ float produce(int64_t i) const {
    const float q = gradient.type == GradientType::kNone
                        ? 0.0f
                        : mul_rn(lr, decayed_at(gradient_at(gradient, i), weight_decay, weight, i));
    out[i] = q;
    return q;
  }
};

// One thread per segment.
static __global__ void __launch_bounds__(kThreads)
    assume_finite(const Segment* segments, int64_t segments_size, long long* nnz /* [S] */) {
  const int64_t s = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (s < segments_size) nnz[s] = segments[s].size;
}

// One block per chunk; nnz[s] falls to -1 where a result is not finite.
static __global__ void __launch_bounds__(kThreads)
    step_dense_chunks(Tables<DenseStep> tables, long long* nnz /* [S] */) {
  const Chunk chunk = tables.chunk(blockIdx.x, Over::kElements);
  const DenseStep operand = tables.operands[chunk.s];
  bool bad = false;
  for (int64_t i = chunk.begin + threadIdx.x; i < chunk.end; i += kThreads)
    bad |= !finite(operand.produce(i));
  if (bad) atomicMin(&nnz[chunk.s], -1ll);
}

}  // namespace dgs::cuda
