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
    remember("offsets", segments_.offsets, segments_.count + 1, false);
  }

  const Call& call() const { return call_; }
  const Segments& segments() const { return segments_; }

  std::vector<const float*> read(const char* name, const Tensors& tensors) {
    auto pointers = check_operand<const float>(call_, segments_, name, tensors);
    remember_segments(name, tensors.size(), pointers, false);
    return pointers;
  }
  std::vector<float*> written(const char* name, const Tensors& tensors) {
    auto pointers = check_operand<float>(call_, segments_, name, tensors);
    remember_segments(name, tensors.size(), pointers, true);
    return pointers;
  }
  std::vector<Gradient> gradients(const Tensors& grads) {
    auto pointers = check_gradients(call_, segments_, grads);
    remember_segments("grads", grads.size(), pointers, false);
    return pointers;
  }
  const float* scalars(const char* name, const Tensor& t) {
    return remember(name, check_scalars(call_, segments_, name, t), segments_.count, false);
  }
  const int64_t* counts(const Tensor& counts) {
    return remember("counts", check_counts(call_, segments_, counts), segments_.count, false);
  }
  int64_t* nnz(const Tensor& nnz) {
    return remember("nnz", check_nnz(call_, segments_, nnz), segments_.count, true);
  }
  int64_t* first(const Tensor& first) {
    return remember("first", device_vector<int64_t>(call_, "first", first, ScalarType::Long, 1, "[1]"), 1,
                    true);
  }
  Slots slots(const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
    const Slots slots = check_selection(call_, segments_, indices, values, starts, nnz);
    remember_selection(slots, indices.numel(), true);
    return slots;
  }
  Entries entries(const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
    const Entries entries = check_entries(call_, segments_, indices, values, starts, nnz);
    remember_selection(entries, indices.numel(), false);
    return entries;
  }
  const float* dense(const char* name, const Tensor& t) {
    const int64_t n = segments_.numel();
    return remember(name, device_vector<const float>(call_, name, t, ScalarType::Float, n, "[N]"), n, false);
  }
  void check_apart() const { extents_.check_apart(call_); }

 private:
  template <class T>
  T* remember(const char* name, T* first, int64_t n, bool written) {
    extents_.add(name, -1, first, n * static_cast<int64_t>(sizeof(T)), written);
    return first;
  }
  template <class Selected>
  void remember_selection(const Selected& selected, int64_t capacity, bool written) {
    remember("indices", selected.indices, capacity, written);
    remember("values", selected.values, capacity, written);
    remember("starts", selected.starts, segments_.count + 1, false);
    remember("nnz", selected.nnz, segments_.count, written);
  }

  static const void* first_of(const void* segment) { return segment; }
  static const void* first_of(const Gradient& gradient) { return gradient.data; }
  static int64_t width_of(const void*) { return sizeof(float); }
  static int64_t width_of(const Gradient& gradient) { return width(gradient.type); }

  // From the checked pointers, as looking at a tensor a second time costs more than sorting it in.
  template <class T>
  void remember_segments(const char* name, size_t tensors, const std::vector<T>& pointers, bool written) {
    if (tensors == 1 && !pointers.empty()) {
      const T& first = pointers[0];
      return extents_.add(name, -1, first_of(first), width_of(first) * segments_.numel(), written);
    }
    for (int64_t s = 0; s < segments_.count; ++s)
      extents_.add(name, s, first_of(pointers[s]), width_of(pointers[s]) * segments_.size(s), written);
  }

  Call call_;
  Segments segments_;
  Extents extents_;
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
