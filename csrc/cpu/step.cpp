// SPDX-License-Identifier: Apache-2.0
#include "cpu/step.h"

#include <torch/csrc/stable/library.h>

#include "common/operands.h"
#include "cpu/capability.h"
#include "cpu/select.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

std::vector<Operand> operands_of(const VelocityOperands& o) {
  std::vector<Operand> operands;
  operands.reserve(o.velocity.size());
  for (size_t s = 0; s < o.velocity.size(); ++s) {
    operands.push_back({.kind = Kind::kVelocity,
                        .x = o.velocity[s],
                        .gradient = o.grads[s],
                        .weights = o.weights[s],
                        .x_out = o.velocity_out[s],
                        .lr = o.lr[s],
                        .weight_decay = o.weight_decay[s]});
  }
  return operands;
}

std::vector<Operand> operands_of(const DgcOperands& o, double grad_scale, bool nesterov) {
  auto operands = operands_of(o.velocity);
  for (size_t s = 0; s < operands.size(); ++s) {
    operands[s].kind = Kind::kDgc;
    operands[s].y = o.residual[s];
    operands[s].y_out = o.residual_out[s];
    operands[s].momentum = o.momentum[s];
    operands[s].grad_scale = static_cast<float>(grad_scale);
    operands[s].nesterov = nesterov;
  }
  return operands;
}

// Once all arguments are known.
void run(const Arguments& arguments, const std::vector<Operand>& operands, const Selecting& selecting,
         CodecNumber codec) {
  arguments.check_apart();
  const Segments& segments = arguments.segments();
  select_top(loops(), operands, segments, {selecting.counts, selecting.sampled, codec}, selecting.out,
             TorchPool(segments.numel()));
}

void step_velocity(const Tensors& grads, const Tensors& weights, const Tensors& velocity,
                   const Tensors& velocity_out, const Tensor& lr, const Tensor& weight_decay,
                   const Tensor& offsets, const Tensor& counts, const Tensor& starts, bool sampled,
                   const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("step_velocity", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const auto o = check_velocity(arguments, grads, weights, velocity, velocity_out, lr, weight_decay);
  run(arguments, operands_of(o), selecting, kNotSent);
}

void push_velocity(const Tensors& grads, const Tensors& weights, const Tensors& velocity,
                   const Tensors& velocity_out, const Tensor& keep, const Tensor& lr,
                   const Tensor& weight_decay, const Tensor& offsets, const Tensor& counts,
                   const Tensor& starts, bool sampled, int64_t codec, const Tensor& indices,
                   const Tensor& values, const Tensor& nnz) {
  Arguments arguments("push_velocity", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  check_any_codec(arguments.call(), codec);
  auto operands =
      operands_of(check_velocity(arguments, grads, weights, velocity, velocity_out, lr, weight_decay));
  const float* share = arguments.scalars("keep", keep);
  for (size_t s = 0; s < operands.size(); ++s) operands[s].keep = share[s];
  run(arguments, operands, selecting, codec);
}

void step_dgc(const Tensors& grads, const Tensors& weights, const Tensors& velocity, const Tensors& residual,
              const Tensors& velocity_out, const Tensors& residual_out, const Tensor& lr,
              const Tensor& weight_decay, const Tensor& momentum, double grad_scale, bool nesterov,
              const Tensor& offsets, const Tensor& counts, const Tensor& starts, bool sampled,
              const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("step_dgc", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const DgcOperands o = check_dgc(
      arguments, check_velocity(arguments, grads, weights, velocity, velocity_out, lr, weight_decay),
      residual, residual_out, momentum);
  run(arguments, operands_of(o, grad_scale, nesterov), selecting, kNotSent);
}

void push_dgc(const Tensors& grads, const Tensors& weights, const Tensors& velocity, const Tensors& residual,
              const Tensors& velocity_out, const Tensors& residual_out, const Tensor& lr,
              const Tensor& weight_decay, const Tensor& momentum, double grad_scale, bool nesterov,
              const Tensor& offsets, const Tensor& counts, const Tensor& starts, bool sampled, int64_t codec,
              const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("push_dgc", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  check_any_codec(arguments.call(), codec);
  const DgcOperands o = check_dgc(
      arguments, check_velocity(arguments, grads, weights, velocity, velocity_out, lr, weight_decay),
      residual, residual_out, momentum);
  auto operands = operands_of(o, grad_scale, nesterov);
  const Segments& segments = arguments.segments();
  for (size_t s = 0; s < operands.size(); ++s) {
    operands[s].masked =
        selecting.counts[s] < segments.size(static_cast<int64_t>(s));  // sent whole: momentum is kept
  }
  run(arguments, operands, selecting, codec);
}

void dense_step(const Tensors& grads, const Tensors& weights, const Tensors& out, const Tensor& lr,
                const Tensor& weight_decay, const Tensor& offsets, const Tensor& nnz) {
  Arguments arguments("step_dense", nnz.device(), offsets);
  const auto g = arguments.gradients(grads);
  const auto w = arguments.read("weights", weights);
  const auto q = arguments.written("out", out);
  const auto *rate = arguments.scalars("lr", lr), *decay = arguments.scalars("weight_decay", weight_decay);
  auto* counted = arguments.nnz(nnz);
  arguments.check_apart();
  step_dense(loops(), g.data(), w.data(), q.data(), rate, decay, arguments.segments(), counted,
             TorchPool(arguments.segments().numel()));
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) {
  m.impl("step_velocity", TORCH_BOX(&dgs::cpu::step_velocity));
  m.impl("step_dgc", TORCH_BOX(&dgs::cpu::step_dgc));
  m.impl("push_velocity", TORCH_BOX(&dgs::cpu::push_velocity));
  m.impl("push_dgc", TORCH_BOX(&dgs::cpu::push_dgc));
  m.impl("step_dense", TORCH_BOX(&dgs::cpu::dense_step));
}
