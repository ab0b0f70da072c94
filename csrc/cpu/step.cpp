// SPDX-License-Identifier: Apache-2.0
#include "cpu/step.h"

#include <torch/csrc/stable/library.h>

#include "common/checks.h"
#include "cpu/select.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

void step_velocity(Tensors grads, Tensors weights, Tensors velocity, Tensors velocity_out, Tensor lr,
                   Tensor weight_decay, Tensor offsets, Tensor counts, Tensor starts, Tensor indices,
                   Tensor values, Tensor nnz) {
  const Call call{"step_velocity", indices.device()};
  const Segments segments = check_segments(call, offsets);
  const auto* k = check_counts(call, segments, counts);
  const Slots slots = check_selection(call, segments, indices, values, starts, nnz);
  check_slots(call, segments, k, slots.starts);
  const auto g = check_gradients(call, segments, grads);
  const auto w = check_operand<const float>(call, segments, "weights", weights);
  const auto v = check_operand<const float>(call, segments, "velocity", velocity);
  const auto out = check_operand<float>(call, segments, "velocity_out", velocity_out);
  check_apart(call, {{"grads", grads, false},
                     {"weights", weights, false},
                     {"velocity", velocity, false},
                     {"velocity_out", velocity_out, true},
                     {"lr", {lr}, false},
                     {"weight_decay", {weight_decay}, false},
                     {"offsets", {offsets}, false},
                     {"counts", {counts}, false},
                     {"starts", {starts}, false},
                     {"indices", {indices}, true},
                     {"values", {values}, true},
                     {"nnz", {nnz}, true}});
  const VelocitySource source{g.data(),
                              w.data(),
                              v.data(),
                              out.data(),
                              check_scalars(call, segments, "lr", lr),
                              check_scalars(call, segments, "weight_decay", weight_decay)};
  select_top(source, segments, k, slots, TorchPool{});
}

void step_dgc(Tensors grads, Tensors weights, Tensors velocity, Tensors residual, Tensors velocity_out,
              Tensors residual_out, Tensor lr, Tensor weight_decay, Tensor momentum, double grad_scale,
              bool nesterov, Tensor offsets, Tensor counts, Tensor starts, Tensor indices, Tensor values,
              Tensor nnz) {
  const Call call{"step_dgc", indices.device()};
  const Segments segments = check_segments(call, offsets);
  const auto* k = check_counts(call, segments, counts);
  const Slots slots = check_selection(call, segments, indices, values, starts, nnz);
  check_slots(call, segments, k, slots.starts);
  const auto g = check_gradients(call, segments, grads);
  const auto w = check_operand<const float>(call, segments, "weights", weights);
  const auto u = check_operand<const float>(call, segments, "velocity", velocity);
  const auto r = check_operand<const float>(call, segments, "residual", residual);
  const auto u_out = check_operand<float>(call, segments, "velocity_out", velocity_out);
  const auto r_out = check_operand<float>(call, segments, "residual_out", residual_out);
  check_apart(call, {{"grads", grads, false},
                     {"weights", weights, false},
                     {"velocity", velocity, false},
                     {"residual", residual, false},
                     {"velocity_out", velocity_out, true},
                     {"residual_out", residual_out, true},
                     {"lr", {lr}, false},
                     {"weight_decay", {weight_decay}, false},
                     {"momentum", {momentum}, false},
                     {"offsets", {offsets}, false},
                     {"counts", {counts}, false},
                     {"starts", {starts}, false},
                     {"indices", {indices}, true},
                     {"values", {values}, true},
                     {"nnz", {nnz}, true}});
  const DgcSource source{g.data(),
                         w.data(),
                         u.data(),
                         r.data(),
                         u_out.data(),
                         r_out.data(),
                         check_scalars(call, segments, "lr", lr),
                         check_scalars(call, segments, "weight_decay", weight_decay),
                         check_scalars(call, segments, "momentum", momentum),
                         static_cast<float>(grad_scale),
                         nesterov};
  select_top(source, segments, k, slots, TorchPool{});
}

void dense_step(Tensors grads, Tensors weights, Tensors out, Tensor lr, Tensor weight_decay, Tensor offsets,
                Tensor nnz) {
  const Call call{"step_dense", nnz.device()};
  const Segments segments = check_segments(call, offsets);
  const auto g = check_gradients(call, segments, grads);
  const auto w = check_operand<const float>(call, segments, "weights", weights);
  const auto q = check_operand<float>(call, segments, "out", out);
  auto* counted = check_nnz(call, segments, nnz);
  check_apart(call, {{"grads", grads, false},
                     {"weights", weights, false},
                     {"out", out, true},
                     {"lr", {lr}, false},
                     {"weight_decay", {weight_decay}, false},
                     {"offsets", {offsets}, false},
                     {"nnz", {nnz}, true}});
  step_dense(g.data(), w.data(), q.data(), check_scalars(call, segments, "lr", lr),
             check_scalars(call, segments, "weight_decay", weight_decay), segments, counted, TorchPool{});
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) {
  m.impl("step_velocity", TORCH_BOX(&dgs::cpu::step_velocity));
  m.impl("step_dgc", TORCH_BOX(&dgs::cpu::step_dgc));
  m.impl("step_dense", TORCH_BOX(&dgs::cpu::dense_step));
}
