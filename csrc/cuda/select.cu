// SPDX-License-Identifier: Apache-2.0
// The selections on CUDA: tensors in, launches on the current stream. Emulated in the tests, never run on a
// GPU yet.
#include <torch/csrc/stable/library.h>

#include "cuda/select.h"
#include "cuda/stream_launcher.h"

namespace dgs {
namespace {

std::vector<cuda::Values> values_of(const Call& call, const Segments& segments, const Tensors& x) {
  std::vector<cuda::Values> operands;
  for (const float* p : check_operand<const float>(call, segments, "x", x)) operands.push_back({p});
  return operands;
}

void select(const Tensors& x, const Tensor& offsets, const Tensor& counts, const Tensor& starts,
            const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  const Call call = cuda::device_call("select", "indices", indices);
  const Segments segments = check_segments(call, offsets);
  const int64_t* k = check_counts(call, segments, counts);
  const Slots out = check_selection(call, segments, indices, values, starts, nnz);
  check_slots(call, segments, k, out.starts);
  const auto operands = values_of(call, segments, x);
  cuda::StreamLauncher launcher(call.device);
  cuda::select_exact(launcher, segments, k, operands, out);
}

void select_difference(const Tensors& x, const Tensors& y, const Tensor& offsets, const Tensor& counts,
                       const Tensor& starts, const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  const Call call = cuda::device_call("select_difference", "indices", indices);
  const Segments segments = check_segments(call, offsets);
  const int64_t* k = check_counts(call, segments, counts);
  const Slots out = check_selection(call, segments, indices, values, starts, nnz);
  check_slots(call, segments, k, out.starts);
  const auto xs = check_operand<const float>(call, segments, "x", x);
  const auto ys = check_operand<const float>(call, segments, "y", y);
  std::vector<cuda::Difference> operands;
  for (size_t s = 0; s < xs.size(); ++s) operands.push_back({xs[s], ys[s]});
  cuda::StreamLauncher launcher(call.device);
  cuda::select_exact(launcher, segments, k, operands, out);
}

void select_sampled(const Tensors& x, const Tensor& offsets, const Tensor& counts, const Tensor& starts,
                    const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  const Call call = cuda::device_call("select_sampled", "indices", indices);
  const Segments segments = check_segments(call, offsets);
  const int64_t* k = check_counts(call, segments, counts);
  const Slots out = check_selection(call, segments, indices, values, starts, nnz);
  const auto operands = values_of(call, segments, x);
  cuda::StreamLauncher launcher(call.device);
  cuda::select_sampled(launcher, segments, k, operands, out);
}

}  // namespace
}  // namespace dgs

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) {
  m.impl("select", TORCH_BOX(&dgs::select));
  m.impl("select_difference", TORCH_BOX(&dgs::select_difference));
  m.impl("select_sampled", TORCH_BOX(&dgs::select_sampled));
}
