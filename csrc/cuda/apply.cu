// SPDX-License-Identifier: Apache-2.0
// Selections and dense updates applied on CUDA: launches on the current stream. Executed in the tests'
// emulator, not yet on a GPU. An index outside its range is dropped: nothing is read back in which to report
// it.
#include <torch/csrc/stable/library.h>

#include "cuda/apply.h"
#include "cuda/send.h"
#include "cuda/stream_launcher.h"

namespace dgs::cuda {
namespace {

void take_out(const Device& device, const Segments& segments, const Entries& entries,
              const std::vector<float*>& velocity, const float* keep) {
  std::vector<ApplyVelocity> operands;
  for (size_t s = 0; s < velocity.size(); ++s) operands.push_back({velocity[s], keep[s]});
  StreamLauncher launcher(device);
  apply_selection(launcher, segments, operands, entries);
}

void take_out(const Device& device, const Segments& segments, const Entries& entries,
              const std::vector<float*>& velocity, const std::vector<float*>& residual,
              const int64_t* counts) {
  std::vector<ApplyDgc> operands;
  for (size_t s = 0; s < velocity.size(); ++s) {
    const bool mask = counts[s] < segments.size(static_cast<int64_t>(s));
    operands.push_back({velocity[s], residual[s], mask});
  }
  StreamLauncher launcher(device);
  apply_selection(launcher, segments, operands, entries);
}

void add(const Device& device, const Segments& segments, const Entries& entries, const std::vector<float*>& x,
         bool subtract) {
  std::vector<SparseAdd> operands;
  for (float* p : x) operands.push_back({p});
  StreamLauncher launcher(device);
  sparse_add(launcher, segments, operands, entries, subtract);
}

void apply_velocity_(const Tensors& velocity, const Tensor& keep, const Tensor& offsets,
                     const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
  Arguments arguments("apply_velocity_", device_of("apply_velocity_", "indices", indices), offsets);
  const auto v = arguments.written("velocity", velocity);
  const auto* share = arguments.scalars("keep", keep);
  const Entries entries = arguments.entries(indices, values, starts, nnz);
  arguments.check_apart();
  take_out(indices.device(), arguments.segments(), entries, v, share);
}

void apply_dgc_(const Tensors& velocity, const Tensors& residual, const Tensor& offsets, const Tensor& counts,
                const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
  Arguments arguments("apply_dgc_", device_of("apply_dgc_", "indices", indices), offsets);
  const auto u = arguments.written("velocity", velocity), r = arguments.written("residual", residual);
  const auto* k = arguments.counts(counts);
  const Entries entries = arguments.entries(indices, values, starts, nnz);
  arguments.check_apart();
  take_out(indices.device(), arguments.segments(), entries, u, r, k);
}

void sparse_add_(const Tensors& x, const Tensor& offsets, const Tensor& indices, const Tensor& values,
                 const Tensor& starts, const Tensor& nnz, bool subtract) {
  Arguments arguments("sparse_add_", device_of("sparse_add_", "indices", indices), offsets);
  const auto to = arguments.written("x", x);
  const Entries entries = arguments.entries(indices, values, starts, nnz);
  arguments.check_apart();
  add(indices.device(), arguments.segments(), entries, to, subtract);
}

void dense_add_(const Tensors& x, const Tensor& offsets, const Tensor& values, bool subtract) {
  Arguments arguments("dense_add_", device_of("dense_add_", "values", values), offsets);
  const auto to = arguments.written("x", x);
  const auto* q = arguments.dense("values", values);
  arguments.check_apart();
  std::vector<DenseAdd> operands;
  for (size_t s = 0; s < to.size(); ++s)
    operands.push_back({to[s], q + arguments.segments().offsets[s], subtract});
  StreamLauncher launcher(values.device());
  dense_add(launcher, arguments.segments(), operands);
}

void sparse_overflow_of(const Tensors& x, const Tensor& offsets, const Tensor& indices, const Tensor& values,
                        const Tensor& starts, const Tensor& nnz, const Tensor& first) {
  Arguments arguments("sparse_overflow", device_of("sparse_overflow", "indices", indices), offsets);
  const auto from = arguments.read("x", x);
  const Entries entries = arguments.entries(indices, values, starts, nnz);
  const Lowest lowest{reinterpret_cast<Count*>(arguments.first(first))};
  arguments.check_apart();
  std::vector<SparseMinuend> operands;
  for (const float* p : from) operands.push_back({p});
  StreamLauncher launcher(indices.device());
  sparse_overflow(launcher, arguments.segments(), operands, entries, lowest);
}

void dense_overflow_of(const Tensors& x, const Tensor& offsets, const Tensor& values, const Tensor& first) {
  Arguments arguments("dense_overflow", device_of("dense_overflow", "values", values), offsets);
  const auto from = arguments.read("x", x);
  const auto* q = arguments.dense("values", values);
  const Lowest lowest{reinterpret_cast<Count*>(arguments.first(first))};
  arguments.check_apart();
  std::vector<DenseDifference> operands;
  for (size_t s = 0; s < from.size(); ++s) {
    const int64_t offset = arguments.segments().offsets[s];
    operands.push_back({from[s], q + offset, offset, lowest});
  }
  StreamLauncher launcher(values.device());
  dense_overflow(launcher, arguments.segments(), operands, lowest);
}

}  // namespace

void take_out_of_velocity(const Device& device, const Segments& segments, const Slots& slots,
                          const std::vector<float*>& velocity, const float* keep) {
  take_out(device, segments, entries_of(slots), velocity, keep);
}
void take_out_of_residual(const Device& device, const Segments& segments, const Slots& slots,
                          const std::vector<float*>& velocity, const std::vector<float*>& residual,
                          const int64_t* counts) {
  take_out(device, segments, entries_of(slots), velocity, residual, counts);
}
void add_to(const Device& device, const Segments& segments, const Slots& slots,
            const std::vector<float*>& x) {
  add(device, segments, entries_of(slots), x, false);
}

}  // namespace dgs::cuda

STABLE_TORCH_LIBRARY_IMPL(dgs, CUDA, m) {
  m.impl("apply_velocity_", TORCH_BOX(&dgs::cuda::apply_velocity_));
  m.impl("apply_dgc_", TORCH_BOX(&dgs::cuda::apply_dgc_));
  m.impl("sparse_add_", TORCH_BOX(&dgs::cuda::sparse_add_));
  m.impl("dense_add_", TORCH_BOX(&dgs::cuda::dense_add_));
  m.impl("sparse_overflow", TORCH_BOX(&dgs::cuda::sparse_overflow_of));
  m.impl("dense_overflow", TORCH_BOX(&dgs::cuda::dense_overflow_of));
}
