// SPDX-License-Identifier: Apache-2.0
// The selections on CUDA: tensors in, launches on the current stream. Executed in the tests' emulator, not
// yet on a GPU.
#include <torch/csrc/stable/library.h>

#include "cuda/select.h"
#include "cuda/send.h"
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

std::vector<Difference> differences(const std::vector<const float*>& x, const std::vector<const float*>& y) {
  std::vector<Difference> operands;
  for (size_t s = 0; s < x.size(); ++s) operands.push_back({x[s], y[s]});
  return operands;
}

void select_difference(const Tensors& x, const Tensors& y, const Tensor& offsets, const Tensor& counts,
                       const Tensor& starts, bool sampled, const Tensor& indices, const Tensor& values,
                       const Tensor& nnz) {
  Arguments arguments("select_difference", device_of("select_difference", "indices", indices), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const auto from = arguments.read("x", x), minus = arguments.read("y", y);
  arguments.check_apart();
  StreamLauncher launcher(indices.device());
  select_top(launcher, arguments.segments(), selecting.counts, selecting.sampled, differences(from, minus),
             selecting.out);
}

void pull(const Tensors& x, const Tensors& mirror, const Tensor& offsets, const Tensor& counts,
          const Tensor& starts, bool sampled, int64_t codec, const Tensor& indices, const Tensor& values,
          const Tensor& nnz) {
  Arguments arguments("pull", device_of("pull", "indices", indices), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  check_any_codec(arguments.call(), codec);
  const auto from = arguments.read("x", x);
  const auto to = arguments.written("mirror", mirror);
  arguments.check_apart();
  const Segments& segments = arguments.segments();
  StreamLauncher launcher(indices.device());
  select_top(launcher, segments, selecting.counts, selecting.sampled,
             differences(from, {to.begin(), to.end()}), selecting.out);
  quantize_slots(indices.device(), segments, selecting.out, codec);
  add_to(indices.device(), segments, selecting.out, to);
}

}  // namespace
}  // namespace dgs::cuda

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) {
  m.impl("select", TORCH_BOX(&dgs::cuda::select));
  m.impl("select_difference", TORCH_BOX(&dgs::cuda::select_difference));
  m.impl("pull", TORCH_BOX(&dgs::cuda::pull));
}
