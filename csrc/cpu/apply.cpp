// SPDX-License-Identifier: Apache-2.0
#include "cpu/apply.h"

#include <torch/csrc/stable/library.h>

#include "common/operands.h"
#include "cpu/capability.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

int64_t work(const std::vector<Range>& ranges) {
  int64_t entries = 0;
  for (const Range& range : ranges) entries += range.end - range.begin;
  return entries;
}

// On the CPU the counts can be read, and are: no slot outside of its segment's is ever touched.
std::vector<Range> checked_ranges(const Call& call, const Segments& segments, const Entries& entries) {
  for (int64_t s = 0; s < segments.count; ++s) {
    const int64_t slots = entries.starts[s + 1] - entries.starts[s];
    DGS_CHECK(call, entries.nnz[s] >= -1 && entries.nnz[s] <= slots, "nnz[", s, "] = ", entries.nnz[s],
              ", must be in [-1, ", slots, "], the slots that starts gives segment ", s);
  }
  return entry_ranges(entries, segments.count);
}

// What was selected from a segment goes back into that segment.
std::vector<Range> own_ranges(const Call& call, const Segments& segments, const Entries& entries) {
  auto ranges = checked_ranges(call, segments, entries);
  const auto inside = [&](int64_t s, int64_t at) {
    return segments.offsets[s] <= at && at < segments.offsets[s + 1];
  };
  const int64_t bad = first_outside(entries, ranges, inside, TorchPool(work(ranges)));
  if (bad < 0) return ranges;
  const auto* after = std::upper_bound(entries.starts, entries.starts + segments.count + 1, bad);
  const int64_t s = after - entries.starts - 1;
  throw std::out_of_range(message("dgs::", call.op, ": indices[", bad, "] = ", entries.indices[bad],
                                  " is outside its segment ", s, " = [", segments.offsets[s], ", ",
                                  segments.offsets[s + 1], ")"));
}

// What came over the network may go anywhere in the model, and nowhere else.
std::vector<Range> model_ranges(const Call& call, const Segments& segments, const Entries& entries) {
  auto ranges = checked_ranges(call, segments, entries);
  const auto inside = [numel = segments.numel()](int64_t, int64_t at) { return 0 <= at && at < numel; };
  const int64_t bad = first_outside(entries, ranges, inside, TorchPool(work(ranges)));
  if (bad < 0) return ranges;
  throw std::out_of_range(message("dgs::", call.op, ": indices[", bad, "] = ", entries.indices[bad],
                                  " is outside [0, ", segments.numel(), "); nothing was changed"));
}

void apply_velocity_(const Tensors& velocity, const Tensor& keep, const Tensor& offsets,
                     const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
  Arguments arguments("apply_velocity_", indices.device(), offsets);
  const auto v = arguments.written("velocity", velocity);
  const auto* share = arguments.scalars("keep", keep);
  const Entries entries = arguments.entries(indices, values, starts, nnz);
  arguments.check_apart();
  const auto ranges = own_ranges(arguments.call(), arguments.segments(), entries);
  apply_velocity(v.data(), share, arguments.segments(), entries, ranges, TorchPool(work(ranges)));
}

void apply_dgc_(const Tensors& velocity, const Tensors& residual, const Tensor& offsets, const Tensor& counts,
                const Tensor& indices, const Tensor& values, const Tensor& starts, const Tensor& nnz) {
  Arguments arguments("apply_dgc_", indices.device(), offsets);
  const auto u = arguments.written("velocity", velocity), r = arguments.written("residual", residual);
  const auto* k = arguments.counts(counts);
  const Entries entries = arguments.entries(indices, values, starts, nnz);
  arguments.check_apart();
  const auto ranges = own_ranges(arguments.call(), arguments.segments(), entries);
  apply_dgc(u.data(), r.data(), k, arguments.segments(), entries, ranges, TorchPool(work(ranges)));
}

void sparse_add_(const Tensors& x, const Tensor& offsets, const Tensor& indices, const Tensor& values,
                 const Tensor& starts, const Tensor& nnz, bool subtract) {
  Arguments arguments("sparse_add_", indices.device(), offsets);
  const auto to = arguments.written("x", x);
  const Entries entries = arguments.entries(indices, values, starts, nnz);
  arguments.check_apart();
  const auto ranges = model_ranges(arguments.call(), arguments.segments(), entries);
  sparse_add(to.data(), arguments.segments(), entries, ranges, subtract, TorchPool(work(ranges)));
}

void dense_add_(const Tensors& x, const Tensor& offsets, const Tensor& values, bool subtract) {
  Arguments arguments("dense_add_", values.device(), offsets);
  const auto to = arguments.written("x", x);
  const auto* q = arguments.dense("values", values);
  arguments.check_apart();
  dense_add(loops(), to.data(), arguments.segments(), q, subtract, TorchPool(values.numel()));
}

void sparse_overflow_of(const Tensors& x, const Tensor& offsets, const Tensor& indices, const Tensor& values,
                        const Tensor& starts, const Tensor& nnz, const Tensor& first) {
  Arguments arguments("sparse_overflow", indices.device(), offsets);
  const auto from = arguments.read("x", x);
  const Entries entries = arguments.entries(indices, values, starts, nnz);
  int64_t* found = arguments.first(first);
  arguments.check_apart();
  const auto ranges = model_ranges(arguments.call(), arguments.segments(), entries);
  *found = sparse_overflow(from.data(), arguments.segments(), entries, ranges, TorchPool(work(ranges)));
}

void dense_overflow_of(const Tensors& x, const Tensor& offsets, const Tensor& values, const Tensor& first) {
  Arguments arguments("dense_overflow", values.device(), offsets);
  const auto from = arguments.read("x", x);
  const auto* q = arguments.dense("values", values);
  int64_t* found = arguments.first(first);
  arguments.check_apart();
  *found = dense_overflow(loops(), from.data(), arguments.segments(), q, TorchPool(values.numel()));
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) {
  m.impl("apply_velocity_", TORCH_BOX(&dgs::cpu::apply_velocity_));
  m.impl("apply_dgc_", TORCH_BOX(&dgs::cpu::apply_dgc_));
  m.impl("sparse_add_", TORCH_BOX(&dgs::cpu::sparse_add_));
  m.impl("dense_add_", TORCH_BOX(&dgs::cpu::dense_add_));
  m.impl("sparse_overflow", TORCH_BOX(&dgs::cpu::sparse_overflow_of));
  m.impl("dense_overflow", TORCH_BOX(&dgs::cpu::dense_overflow_of));
}
