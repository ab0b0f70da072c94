// SPDX-License-Identifier: Apache-2.0
#include "cpu/apply.h"

#include <torch/csrc/stable/library.h>

#include "common/checks.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

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
  const int64_t bad = first_outside(entries, ranges, inside, TorchPool{});
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
  const int64_t bad = first_outside(entries, ranges, inside, TorchPool{});
  if (bad < 0) return ranges;
  throw std::out_of_range(message("dgs::", call.op, ": indices[", bad, "] = ", entries.indices[bad],
                                  " is outside [0, ", segments.numel(), "); nothing was changed"));
}

void apply_velocity_(Tensors velocity, Tensor keep, Tensor offsets, Tensor indices, Tensor values,
                     Tensor starts, Tensor nnz) {
  const Call call{"apply_velocity_", indices.device()};
  const Segments segments = check_segments(call, offsets);
  const auto* share = check_scalars(call, segments, "keep", keep);
  const auto v = check_operand<float>(call, segments, "velocity", velocity);
  const Entries entries = check_entries(call, segments, indices, values, starts, nnz);
  check_apart(call, {{"velocity", velocity, true},
                     {"keep", {keep}, false},
                     {"offsets", {offsets}, false},
                     {"indices", {indices}, false},
                     {"values", {values}, false},
                     {"starts", {starts}, false},
                     {"nnz", {nnz}, false}});
  apply_velocity(v.data(), share, segments, entries, own_ranges(call, segments, entries), TorchPool{});
}

void apply_dgc_(Tensors velocity, Tensors residual, Tensor offsets, Tensor counts, Tensor indices,
                Tensor values, Tensor starts, Tensor nnz) {
  const Call call{"apply_dgc_", indices.device()};
  const Segments segments = check_segments(call, offsets);
  const auto* k = check_counts(call, segments, counts);
  const auto u = check_operand<float>(call, segments, "velocity", velocity);
  const auto r = check_operand<float>(call, segments, "residual", residual);
  const Entries entries = check_entries(call, segments, indices, values, starts, nnz);
  check_apart(call, {{"velocity", velocity, true},
                     {"residual", residual, true},
                     {"offsets", {offsets}, false},
                     {"counts", {counts}, false},
                     {"indices", {indices}, false},
                     {"values", {values}, false},
                     {"starts", {starts}, false},
                     {"nnz", {nnz}, false}});
  apply_dgc(u.data(), r.data(), k, segments, entries, own_ranges(call, segments, entries), TorchPool{});
}

void sparse_add_(Tensors x, Tensor offsets, Tensor indices, Tensor values, Tensor starts, Tensor nnz,
                 bool subtract) {
  const Call call{"sparse_add_", indices.device()};
  const Segments segments = check_segments(call, offsets);
  const auto px = check_operand<float>(call, segments, "x", x);
  const Entries entries = check_entries(call, segments, indices, values, starts, nnz);
  check_apart(call, {{"x", x, true},
                     {"offsets", {offsets}, false},
                     {"indices", {indices}, false},
                     {"values", {values}, false},
                     {"starts", {starts}, false},
                     {"nnz", {nnz}, false}});
  sparse_add(px.data(), segments, entries, model_ranges(call, segments, entries), subtract, TorchPool{});
}

void dense_add_(Tensors x, Tensor offsets, Tensor values, bool subtract) {
  const Call call{"dense_add_", values.device()};
  const Segments segments = check_segments(call, offsets);
  const auto px = check_operand<float>(call, segments, "x", x);
  const auto* q =
      device_vector<const float>(call, "values", values, ScalarType::Float, segments.numel(), "[N]");
  check_apart(call, {{"x", x, true}, {"offsets", {offsets}, false}, {"values", {values}, false}});
  dense_add(px.data(), segments, q, subtract, TorchPool{});
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) {
  m.impl("apply_velocity_", TORCH_BOX(&dgs::cpu::apply_velocity_));
  m.impl("apply_dgc_", TORCH_BOX(&dgs::cpu::apply_dgc_));
  m.impl("sparse_add_", TORCH_BOX(&dgs::cpu::sparse_add_));
  m.impl("dense_add_", TORCH_BOX(&dgs::cpu::dense_add_));
}
