// SPDX-License-Identifier: Apache-2.0
// The workers' steps. Those of the sparse methods are what the sweep of a selection produces: it computes the
// new state, writes it and keeps candidates while it is in registers.
#pragma once

#include "cuda/tile.cuh"

namespace dgs::cuda {

// g = fl(scaled gradient + fl(weight_decay * w)); the weights are not read without weight decay. The gradient
// is not kNone.
template <int W>
__device__ __forceinline__ void add_decay(Lanes<W>& g, float weight_decay, const float* weight) {
  if (weight_decay == 0.0f) return;
  const Lanes<W> w = load<W>(weight);
#pragma unroll
  for (int e = 0; e < W; ++e) g.v[e] = decayed(g.v[e], weight_decay, w.v[e]);
}

// `dgs` and `gd`: u = v + lr * g.
struct VelocityStep {
  Gradient gradient;
  const float* weight;    // [n]
  const float* velocity;  // [n]
  float* velocity_out;    // [n]
  float lr, weight_decay;

  template <int W>
  __device__ Lanes<W> compute(int64_t i) const {
    Lanes<W> u = load<W>(velocity + i);
    if (gradient.type == GradientType::kNone) return u;
    Lanes<W> g = load_gradient<W>(gradient, i);
    add_decay(g, weight_decay, weight + i);
#pragma unroll
    for (int e = 0; e < W; ++e) u.v[e] = accumulated(u.v[e], lr, g.v[e]);
    return u;
  }
  template <int W>
  __device__ Lanes<W> produce(int64_t i, bool& bad) const {
    const Lanes<W> u = compute<W>(i);
    store(velocity_out + i, u);
    bad |= !all_finite(u);
    return u;
  }
  __device__ float peek(int64_t i) const { return compute<1>(i).v[0]; }
  __device__ float value(int64_t i) const { return load_one(velocity_out + i); }
  Alignment alignment() const {
    Alignment alignment = Alignment().add(velocity_out, 4).add(velocity, 4).add(gradient);
    return gradient.type == GradientType::kNone || weight_decay == 0.0f ? alignment
                                                                        : alignment.add(weight, 4);
  }
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

  template <int W>
  struct Next {
    Lanes<W> u, r;
  };
  template <int W>
  __device__ Next<W> compute(int64_t i) const {
    Next<W> next{load<W>(velocity + i), load<W>(residual + i)};
    if (gradient.type == GradientType::kNone) return next;
    Lanes<W> g = load_gradient<W>(gradient, i);
#pragma unroll
    for (int e = 0; e < W; ++e) g.v[e] = mul_rn(g.v[e], grad_scale);
    add_decay(g, weight_decay, weight + i);
#pragma unroll
    for (int e = 0; e < W; ++e) {
      next.u.v[e] = dgc_velocity(next.u.v[e], momentum, g.v[e]);
      next.r.v[e] = accumulated(next.r.v[e], lr, dgc_update(next.u.v[e], momentum, g.v[e], nesterov));
    }
    return next;
  }
  template <int W>
  __device__ Lanes<W> produce(int64_t i, bool& bad) const {
    const Next<W> next = compute<W>(i);
    store(velocity_out + i, next.u);
    store(residual_out + i, next.r);
    bad |= !(all_finite(next.u) && all_finite(next.r));
    return next.r;
  }
  __device__ float peek(int64_t i) const { return compute<1>(i).r.v[0]; }
  __device__ float value(int64_t i) const { return load_one(residual_out + i); }
  Alignment alignment() const {
    Alignment alignment =
        Alignment().add(residual_out, 4).add(velocity_out, 4).add(velocity, 4).add(residual, 4);
    alignment.add(gradient);
    return gradient.type == GradientType::kNone || weight_decay == 0.0f ? alignment
                                                                        : alignment.add(weight, 4);
  }
};

// `asgd`: q = lr * g, flushed, dense; no gradient is a zero.
struct DenseStep {
  Gradient gradient;
  const float* weight;  // [n]
  float* out;           // [n]
  float lr, weight_decay;

  template <int W>
  __device__ Lanes<W> produce(int64_t i, bool& bad) const {
    Lanes<W> q{};
    if (gradient.type != GradientType::kNone) {
      q = load_gradient<W>(gradient, i);
      add_decay(q, weight_decay, weight + i);
#pragma unroll
      for (int e = 0; e < W; ++e) q.v[e] = scaled(lr, q.v[e]);
    }
    store(out + i, q);
    bad |= !all_finite(q);
    return q;
  }
  Alignment alignment() const {
    Alignment alignment = Alignment().add(out, 4).add(gradient);
    return gradient.type == GradientType::kNone || weight_decay == 0.0f ? alignment
                                                                        : alignment.add(weight, 4);
  }
};

// One thread per segment.
static __global__ void __launch_bounds__(kThreads)
    assume_finite(const Segment* segments, int64_t segments_size, long long* nnz /* [S] */) {
  const int64_t s = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (s < segments_size) nnz[s] = segments[s].size;
}

// One block per tile; nnz[s] falls to -1 where a result is not finite.
static __global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    step_dense_tiles(Tables<DenseStep> tables, long long* nnz /* [S] */) {
  const Tile tile = tables.tile(blockIdx.x);
  const DenseStep operand = tables.operands[tile.s];
  if (produce_tile(operand, tile, tables.segments[tile.s].vector != 0)) atomicMin(&nnz[tile.s], -1ll);
}

}  // namespace dgs::cuda
