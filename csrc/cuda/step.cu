// SPDX-License-Identifier: Apache-2.0
// The workers' steps on CUDA: launches on the current stream. Emulated in the tests, never run on a GPU yet.
#include <torch/csrc/stable/library.h>

#include "cuda/step.h"
#include "cuda/stream_launcher.h"

namespace dgs {
namespace {

void step_velocity(const Tensors& grads, const Tensors& weights, const Tensors& velocity,
                   const Tensors& velocity_out, const Tensor& lr, const Tensor& weight_decay,
                   const Tensor& offsets, const Tensor& counts, const Tensor& starts, const Tensor& indices,
                   const Tensor& values, const Tensor& nnz) {
  const Call call = cuda::device_call("step_velocity", "indices", indices);
  const Segments segments = check_segments(call, offsets);
  const int64_t* k = check_counts(call, segments, counts);
  const Slots out = check_selection(call, segments, indices, values, starts, nnz);
  check_slots(call, segments, k, out.starts);
  const auto gradient = check_gradients(call, segments, grads);
  const auto weight = check_operand<const float>(call, segments, "weights", weights);
  const auto v = check_operand<const float>(call, segments, "velocity", velocity);
  const auto v_out = check_operand<float>(call, segments, "velocity_out", velocity_out);
  const float* rate = check_scalars(call, segments, "lr", lr);
  const float* decay = check_scalars(call, segments, "weight_decay", weight_decay);
  check_apart(call, {{"grads", grads, false},
                     {"weights", weights, false},
                     {"velocity", velocity, false},
                     {"velocity_out", velocity_out, true}});
  std::vector<cuda::VelocityStep> operands;
  for (size_t s = 0; s < v.size(); ++s)
    operands.push_back({gradient[s], weight[s], v[s], v_out[s], rate[s], decay[s]});
  cuda::StreamLauncher launcher(call.device);
  cuda::select_exact(launcher, segments, k, operands, out);
}

void step_dgc(const Tensors& grads, const Tensors& weights, const Tensors& velocity, const Tensors& residual,
              const Tensors& velocity_out, const Tensors& residual_out, const Tensor& lr,
              const Tensor& weight_decay, const Tensor& momentum, double grad_scale, bool nesterov,
              const Tensor& offsets, const Tensor& counts, const Tensor& starts, const Tensor& indices,
              const Tensor& values, const Tensor& nnz) {
  const Call call = cuda::device_call("step_dgc", "indices", indices);
  const Segments segments = check_segments(call, offsets);
  const int64_t* k = check_counts(call, segments, counts);
  const Slots out = check_selection(call, segments, indices, values, starts, nnz);
  check_slots(call, segments, k, out.starts);
  const auto gradient = check_gradients(call, segments, grads);
  const auto weight = check_operand<const float>(call, segments, "weights", weights);
  const auto u = check_operand<const float>(call, segments, "velocity", velocity);
  const auto r = check_operand<const float>(call, segments, "residual", residual);
  const auto u_out = check_operand<float>(call, segments, "velocity_out", velocity_out);
  const auto r_out = check_operand<float>(call, segments, "residual_out", residual_out);
  const float* rate = check_scalars(call, segments, "lr", lr);
  const float* decay = check_scalars(call, segments, "weight_decay", weight_decay);
  const float* m = check_scalars(call, segments, "momentum", momentum);
  check_apart(call, {{"grads", grads, false},
                     {"weights", weights, false},
                     {"velocity", velocity, false},
                     {"residual", residual, false},
                     {"velocity_out", velocity_out, true},
                     {"residual_out", residual_out, true}});
  std::vector<cuda::DgcStep> operands;
  for (size_t s = 0; s < u.size(); ++s)
    operands.push_back({gradient[s], weight[s], u[s], r[s], u_out[s], r_out[s], rate[s], decay[s], m[s],
                        static_cast<float>(grad_scale), nesterov});
  cuda::StreamLauncher launcher(call.device);
  cuda::select_exact(launcher, segments, k, operands, out);
}

void step_dense(const Tensors& grads, const Tensors& weights, const Tensors& out, const Tensor& lr,
                const Tensor& weight_decay, const Tensor& offsets, const Tensor& nnz) {
  const Call call = cuda::device_call("step_dense", "nnz", nnz);
  const Segments segments = check_segments(call, offsets);
  const auto gradient = check_gradients(call, segments, grads);
  const auto weight = check_operand<const float>(call, segments, "weights", weights);
  const auto q = check_operand<float>(call, segments, "out", out);
  const float* rate = check_scalars(call, segments, "lr", lr);
  const float* decay = check_scalars(call, segments, "weight_decay", weight_decay);
  int64_t* const n = check_nnz(call, segments, nnz);
  check_apart(call, {{"grads", grads, false}, {"weights", weights, false}, {"out", out, true}});
  std::vector<cuda::DenseStep> operands;
  for (size_t s = 0; s < q.size(); ++s) operands.push_back({gradient[s], weight[s], q[s], rate[s], decay[s]});
  cuda::StreamLauncher launcher(call.device);
  cuda::step_dense(launcher, segments, operands, n);
}

}  // namespace
}  // namespace dgs

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) {
  m.impl("step_velocity", TORCH_BOX(&dgs::step_velocity));
  m.impl("step_dgc", TORCH_BOX(&dgs::step_dgc));
  m.impl("step_dense", TORCH_BOX(&dgs::step_dense));
}
