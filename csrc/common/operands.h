// SPDX-License-Identifier: Apache-2.0
// The operands of each op of ops.cpp, checked once for the CPU and the CUDA ops: tensors in, pointers out.
#pragma once

#include <utility>
#include <vector>

#include "common/apart.h"
#include "common/checks.h"

namespace dgs {

// Checks operands one by one, remembers where they lie, and in the end that what is written shares no memory.
class Arguments {
 public:
  // device: that of the data tensor whose placement decides for all.
  Arguments(const char* op, const torch::stable::Device& device, const Tensor& offsets)
      : call_{op, device}, segments_(check_segments(call_, offsets)) {
    remember("offsets", {offsets}, false);
  }

  const Call& call() const { return call_; }
  const Segments& segments() const { return segments_; }

  std::vector<const float*> read(const char* name, const Tensors& tensors) {
    remember(name, tensors, false);
    return check_operand<const float>(call_, segments_, name, tensors);
  }
  std::vector<float*> written(const char* name, const Tensors& tensors) {
    remember(name, tensors, true);
    return check_operand<float>(call_, segments_, name, tensors);
  }
  std::vector<Gradient> gradients(const Tensors& grads) {
    remember("grads", grads, false);
    return check_gradients(call_, segments_, grads);
  }
  const float* scalars(const char* name, const Tensor& t) {
    remember(name, {t}, false);
    return check_scalars(call_, segments_, name, t);
  }
  const int64_t* counts(const Tensor& counts) {
    remember("counts", {counts}, false);
    return check_counts(call_, segments_, counts);
  }
  int64_t* nnz(const Tensor& nnz) {
    remember("nnz", {nnz}, true);
    return check_nnz(call_, segments_, nnz);
  }
  int64_t* first(const Tensor& first) {
    remember("first", {first}, true);
    return device_vector<int64_t>(call_, "first", first, ScalarType::Long, 1, "[1]");
  }
  Slots slots(const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
    remember_selection(indices, values, starts, nnz, true);
    return check_selection(call_, segments_, indices, values, starts, nnz);
  }
  Entries entries(const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
    remember_selection(indices, values, starts, nnz, false);
    return check_entries(call_, segments_, indices, values, starts, nnz);
  }
  const float* dense(const char* name, const Tensor& t) {
    remember(name, {t}, false);
    return device_vector<const float>(call_, name, t, ScalarType::Float, segments_.numel(), "[N]");
  }
  void check_apart() const { dgs::check_apart(call_, operands_); }

 private:
  void remember(const char* name, const Tensors& tensors, bool written) {
    operands_.push_back({name, tensors, written});
  }
  void remember_selection(const Tensor& indices, const Tensor& values, const Tensor& starts,
                          const Tensor& nnz, bool written) {
    remember("indices", {indices}, written);
    remember("values", {values}, written);
    remember("starts", {starts}, false);
    remember("nnz", {nnz}, written);
  }

  Call call_;
  Segments segments_;
  std::vector<Operand> operands_;
};

// What a selection is asked for, and where it goes.
struct Selecting {
  const int64_t* counts;
  bool sampled;
  Slots out;
};

inline Selecting check_selecting(Arguments& arguments, const Tensor& counts, const Tensor& starts,
                                 bool sampled, const Tensor& indices, const Tensor& values,
                                 const Tensor& nnz) {
  const auto* k = arguments.counts(counts);
  const Slots out = arguments.slots(indices, values, starts, nnz);
  if (!sampled) check_slots(arguments.call(), arguments.segments(), k, out.starts);
  return {k, sampled, out};
}

struct VelocityOperands {  // [segments] each
  std::vector<Gradient> grads;
  std::vector<const float*> weights, velocity;
  std::vector<float*> velocity_out;
  const float *lr, *weight_decay;
};

inline VelocityOperands check_velocity(Arguments& arguments, const Tensors& grads, const Tensors& weights,
                                       const Tensors& velocity, const Tensors& velocity_out, const Tensor& lr,
                                       const Tensor& weight_decay) {
  return {arguments.gradients(grads),           arguments.read("weights", weights),
          arguments.read("velocity", velocity), arguments.written("velocity_out", velocity_out),
          arguments.scalars("lr", lr),          arguments.scalars("weight_decay", weight_decay)};
}

struct DgcOperands {
  VelocityOperands velocity;
  std::vector<const float*> residual;
  std::vector<float*> residual_out;
  const float* momentum;
};

inline DgcOperands check_dgc(Arguments& arguments, VelocityOperands velocity, const Tensors& residual,
                             const Tensors& residual_out, const Tensor& momentum) {
  return {std::move(velocity), arguments.read("residual", residual),
          arguments.written("residual_out", residual_out), arguments.scalars("momentum", momentum)};
}

}  // namespace dgs
