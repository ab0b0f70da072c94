// SPDX-License-Identifier: Apache-2.0
// The selections on CUDA: tensors in, launches on the current stream. Executed in the tests' emulator, not
// yet on a GPU.
#include <torch/csrc/stable/library.h>

#include "cuda/select.h"
#include "cuda/stream_launcher.h"

namespace dgs::cuda {
namespace {

std::vector<Values> values_of(const std::vector<const float*>& x) {
  std::vector<Values> operands;
  for (const float* p : x) operands.push_back({p});
  return operands;
}

void select(const Tensors& x, const Tensor& offsets, const Tensor& counts, const Tensor& starts, bool sampled,
            const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("select", device_of("select", "indices", indices), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const auto operands = values_of(arguments.read("x", x));
  arguments.check_apart();
  StreamLauncher launcher(indices.device());
  select_top(launcher, arguments.segments(), selecting.counts, selecting.sampled, operands, selecting.out);
}

void select_difference(const Tensors& x, const Tensors& y, const Tensor& offsets, const Tensor& counts,
                       const Tensor& starts, bool sampled, const Tensor& indices, const Tensor& values,
                       const Tensor& nnz) {
  Arguments arguments("select_difference", device_of("select_difference", "indices", indices), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const auto from = arguments.read("x", x), minus = arguments.read("y", y);
  arguments.check_apart();
  std::vector<Difference> operands;
  for (size_t s = 0; s < from.size(); ++s) operands.push_back({from[s], minus[s]});
  StreamLauncher launcher(indices.device());
  select_top(launcher, arguments.segments(), selecting.counts, selecting.sampled, operands, selecting.out);
}

}  // namespace
}  // namespace dgs::cuda

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) {
  m.impl("select", TORCH_BOX(&dgs::cuda::select));
  m.impl("select_difference", TORCH_BOX(&dgs::cuda::select_difference));
}
