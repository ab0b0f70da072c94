// SPDX-License-Identifier: Apache-2.0
#include "cpu/select.h"

#include <torch/csrc/stable/library.h>

#include "common/checks.h"
#include "cpu/select_sampled.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

void select(Tensors x, Tensor offsets, Tensor counts, Tensor starts, Tensor indices, Tensor values,
            Tensor nnz) {
  const Call call{"select", indices.device()};
  const Segments segments = check_segments(call, offsets);
  const auto* k = check_counts(call, segments, counts);
  const Slots slots = check_selection(call, segments, indices, values, starts, nnz);
  check_slots(call, segments, k, slots.starts);
  const auto px = check_operand<const float>(call, segments, "x", x);
  check_apart(call, {{"x", x, false},
                     {"offsets", {offsets}, false},
                     {"counts", {counts}, false},
                     {"starts", {starts}, false},
                     {"indices", {indices}, true},
                     {"values", {values}, true},
                     {"nnz", {nnz}, true}});
  select_top(PlainSource{px.data()}, segments, k, slots, TorchPool{});
}

void select_difference(Tensors x, Tensors y, Tensor offsets, Tensor counts, Tensor starts, Tensor indices,
                       Tensor values, Tensor nnz) {
  const Call call{"select_difference", indices.device()};
  const Segments segments = check_segments(call, offsets);
  const auto* k = check_counts(call, segments, counts);
  const Slots slots = check_selection(call, segments, indices, values, starts, nnz);
  check_slots(call, segments, k, slots.starts);
  const auto px = check_operand<const float>(call, segments, "x", x);
  const auto py = check_operand<const float>(call, segments, "y", y);
  check_apart(call, {{"x", x, false},
                     {"y", y, false},
                     {"offsets", {offsets}, false},
                     {"counts", {counts}, false},
                     {"starts", {starts}, false},
                     {"indices", {indices}, true},
                     {"values", {values}, true},
                     {"nnz", {nnz}, true}});
  select_top(DifferenceSource{px.data(), py.data()}, segments, k, slots, TorchPool{});
}

void select_by_sample(Tensors x, Tensor offsets, Tensor counts, Tensor starts, Tensor indices, Tensor values,
                      Tensor nnz) {
  const Call call{"select_sampled", indices.device()};
  const Segments segments = check_segments(call, offsets);
  const auto* k = check_counts(call, segments, counts);
  const Slots slots = check_selection(call, segments, indices, values, starts, nnz);
  const auto px = check_operand<const float>(call, segments, "x", x);
  check_apart(call, {{"x", x, false},
                     {"offsets", {offsets}, false},
                     {"counts", {counts}, false},
                     {"starts", {starts}, false},
                     {"indices", {indices}, true},
                     {"values", {values}, true},
                     {"nnz", {nnz}, true}});
  select_sampled(px.data(), segments, k, slots, TorchPool{});
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) {
  m.impl("select", TORCH_BOX(&dgs::cpu::select));
  m.impl("select_difference", TORCH_BOX(&dgs::cpu::select_difference));
  m.impl("select_sampled", TORCH_BOX(&dgs::cpu::select_by_sample));
}
