// SPDX-License-Identifier: Apache-2.0
// The workers' steps on CUDA: launches on the current stream. Executed in the tests' emulator, not yet on a
// GPU.
#include <torch/csrc/stable/library.h>

#include "cuda/send.h"
#include "cuda/step.h"
#include "cuda/stream_launcher.h"

namespace dgs::cuda {
namespace {

void run(const Arguments& arguments, const VelocityOperands& o, const Selecting& selecting,
         const torch::stable::Device& device) {
  std::vector<VelocityStep> operands;
  for (size_t s = 0; s < o.velocity.size(); ++s)
    operands.push_back(
        {o.grads[s], o.weights[s], o.velocity[s], o.velocity_out[s], o.lr[s], o.weight_decay[s]});
  StreamLauncher launcher(device);
  select_top(launcher, arguments.segments(), selecting.counts, selecting.sampled, operands, selecting.out);
}

void run(const Arguments& arguments, const DgcOperands& o, double grad_scale, bool nesterov,
         const Selecting& selecting, const torch::stable::Device& device) {
  const VelocityOperands& v = o.velocity;
  std::vector<DgcStep> operands;
  for (size_t s = 0; s < v.velocity.size(); ++s)
    operands.push_back({v.grads[s], v.weights[s], v.velocity[s], o.residual[s], v.velocity_out[s],
                        o.residual_out[s], v.lr[s], v.weight_decay[s], o.momentum[s],
                        static_cast<float>(grad_scale), nesterov});
  StreamLauncher launcher(device);
  select_top(launcher, arguments.segments(), selecting.counts, selecting.sampled, operands, selecting.out);
}

void step_velocity(const Tensors& grads, const Tensors& weights, const Tensors& velocity,
                   const Tensors& velocity_out, const Tensor& lr, const Tensor& weight_decay,
                   const Tensor& offsets, const Tensor& counts, const Tensor& starts, bool sampled,
                   const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("step_velocity", device_of("step_velocity", "indices", indices), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const VelocityOperands o =
      check_velocity(arguments, grads, weights, velocity, velocity_out, lr, weight_decay);
  arguments.check_apart();
  run(arguments, o, selecting, indices.device());
}

void push_velocity(const Tensors& grads, const Tensors& weights, const Tensors& velocity,
                   const Tensors& velocity_out, const Tensor& keep, const Tensor& lr,
                   const Tensor& weight_decay, const Tensor& offsets, const Tensor& counts,
                   const Tensor& starts, bool sampled, int64_t codec, const Tensor& indices,
                   const Tensor& values, const Tensor& nnz) {
  Arguments arguments("push_velocity", device_of("push_velocity", "indices", indices), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  check_any_codec(arguments.call(), codec);
  const VelocityOperands o =
      check_velocity(arguments, grads, weights, velocity, velocity_out, lr, weight_decay);
  const float* share = arguments.scalars("keep", keep);
  arguments.check_apart();
  const auto device = indices.device();
  run(arguments, o, selecting, device);
  quantize_slots(device, arguments.segments(), selecting.out, codec);
  take_out_of_velocity(device, arguments.segments(), selecting.out, o.velocity_out, share);
}

void step_dgc(const Tensors& grads, const Tensors& weights, const Tensors& velocity, const Tensors& residual,
              const Tensors& velocity_out, const Tensors& residual_out, const Tensor& lr,
              const Tensor& weight_decay, const Tensor& momentum, double grad_scale, bool nesterov,
              const Tensor& offsets, const Tensor& counts, const Tensor& starts, bool sampled,
              const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("step_dgc", device_of("step_dgc", "indices", indices), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const DgcOperands o = check_dgc(
      arguments, check_velocity(arguments, grads, weights, velocity, velocity_out, lr, weight_decay),
      residual, residual_out, momentum);
  arguments.check_apart();
  run(arguments, o, grad_scale, nesterov, selecting, indices.device());
}

void push_dgc(const Tensors& grads, const Tensors& weights, const Tensors& velocity, const Tensors& residual,
              const Tensors& velocity_out, const Tensors& residual_out, const Tensor& lr,
              const Tensor& weight_decay, const Tensor& momentum, double grad_scale, bool nesterov,
              const Tensor& offsets, const Tensor& counts, const Tensor& starts, bool sampled, int64_t codec,
              const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("push_dgc", device_of("push_dgc", "indices", indices), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  check_any_codec(arguments.call(), codec);
  const DgcOperands o = check_dgc(
      arguments, check_velocity(arguments, grads, weights, velocity, velocity_out, lr, weight_decay),
      residual, residual_out, momentum);
  arguments.check_apart();
  const auto device = indices.device();
  run(arguments, o, grad_scale, nesterov, selecting, device);
  quantize_slots(device, arguments.segments(), selecting.out, codec);
  take_out_of_residual(device, arguments.segments(), selecting.out, o.velocity.velocity_out, o.residual_out,
                       selecting.counts);
}

void dense_step(const Tensors& grads, const Tensors& weights, const Tensors& out, const Tensor& lr,
                const Tensor& weight_decay, const Tensor& offsets, const Tensor& nnz) {
  Arguments arguments("step_dense", device_of("step_dense", "nnz", nnz), offsets);
  const auto g = arguments.gradients(grads);
  const auto w = arguments.read("weights", weights);
  const auto q = arguments.written("out", out);
  const auto *rate = arguments.scalars("lr", lr), *decay = arguments.scalars("weight_decay", weight_decay);
  auto* counted = arguments.nnz(nnz);
  arguments.check_apart();
  std::vector<DenseStep> operands;
  for (size_t s = 0; s < q.size(); ++s) operands.push_back({g[s], w[s], q[s], rate[s], decay[s]});
  StreamLauncher launcher(nnz.device());
  step_dense(launcher, arguments.segments(), operands, counted);
}

}  // namespace
}  // namespace dgs::cuda

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) {
  m.impl("step_velocity", TORCH_BOX(&dgs::cuda::step_velocity));
  m.impl("step_dgc", TORCH_BOX(&dgs::cuda::step_dgc));
  m.impl("push_velocity", TORCH_BOX(&dgs::cuda::push_velocity));
  m.impl("push_dgc", TORCH_BOX(&dgs::cuda::push_dgc));
  m.impl("step_dense", TORCH_BOX(&dgs::cuda::dense_step));
}
