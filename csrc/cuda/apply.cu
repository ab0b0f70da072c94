// SPDX-License-Identifier: Apache-2.0
// Selections and dense updates applied on CUDA: launches on the current stream. Emulated in the tests, never
// run on a GPU yet. An index outside its range is dropped: nothing is read back in which to report it.
#include <torch/csrc/stable/library.h>

#include "cuda/apply.h"
#include "cuda/stream_launcher.h"

namespace dgs {
namespace {

void apply_velocity_(const Tensors& velocity, const Tensor& keep, const Tensor& offsets,
                     const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
  const Call call = cuda::device_call("apply_velocity_", "indices", indices);
  const Segments segments = check_segments(call, offsets);
  const float* keeps = check_scalars(call, segments, "keep", keep);
  const Entries entries = check_entries(call, segments, indices, values, starts, nnz);
  std::vector<cuda::ApplyVelocity> operands;
  for (float* v : check_operand<float>(call, segments, "velocity", velocity))
    operands.push_back({v, keeps[operands.size()]});
  cuda::StreamLauncher launcher(call.device);
  cuda::apply_selection(launcher, segments, operands, entries);
}

void apply_dgc_(const Tensors& velocity, const Tensors& residual, const Tensor& offsets, const Tensor& counts,
                const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
  const Call call = cuda::device_call("apply_dgc_", "indices", indices);
  const Segments segments = check_segments(call, offsets);
  const int64_t* k = check_counts(call, segments, counts);
  const Entries entries = check_entries(call, segments, indices, values, starts, nnz);
  const auto us = check_operand<float>(call, segments, "velocity", velocity);
  const auto rs = check_operand<float>(call, segments, "residual", residual);
  check_apart(call, {{"velocity", velocity, true}, {"residual", residual, true}});
  std::vector<cuda::ApplyDgc> operands;
  for (size_t s = 0; s < us.size(); ++s)
    operands.push_back({us[s], rs[s], k[s] < segments.size(static_cast<int64_t>(s))});
  cuda::StreamLauncher launcher(call.device);
  cuda::apply_selection(launcher, segments, operands, entries);
}

void sparse_add_(const Tensors& x, const Tensor& offsets, const Tensor& indices, const Tensor& values,
                 const Tensor& starts, const Tensor& nnz, bool subtract) {
  const Call call = cuda::device_call("sparse_add_", "indices", indices);
  const Segments segments = check_segments(call, offsets);
  const Entries entries = check_entries(call, segments, indices, values, starts, nnz);
  std::vector<cuda::SparseAdd> operands;
  for (float* p : check_operand<float>(call, segments, "x", x)) operands.push_back({p});
  cuda::StreamLauncher launcher(call.device);
  cuda::sparse_add(launcher, segments, operands, entries, subtract);
}

void dense_add_(const Tensors& x, const Tensor& offsets, const Tensor& values, bool subtract) {
  const Call call = cuda::device_call("dense_add_", "values", values);
  const Segments segments = check_segments(call, offsets);
  const auto* q =
      device_vector<const float>(call, "values", values, ScalarType::Float, segments.numel(), "[N]");
  std::vector<cuda::DenseAdd> operands;
  for (float* p : check_operand<float>(call, segments, "x", x))
    operands.push_back({p, q + segments.offsets[operands.size()]});
  check_apart(call, {{"x", x, true}, {"values", {values}, false}});
  cuda::StreamLauncher launcher(call.device);
  cuda::dense_add(launcher, segments, operands, subtract);
}

}  // namespace
}  // namespace dgs

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) {
  m.impl("apply_velocity_", TORCH_BOX(&dgs::apply_velocity_));
  m.impl("apply_dgc_", TORCH_BOX(&dgs::apply_dgc_));
  m.impl("sparse_add_", TORCH_BOX(&dgs::sparse_add_));
  m.impl("dense_add_", TORCH_BOX(&dgs::dense_add_));
}
