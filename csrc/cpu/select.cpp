// SPDX-License-Identifier: Apache-2.0
#include "cpu/select.h"

#include <torch/csrc/stable/library.h>

#include "common/operands.h"
#include "cpu/select_sampled.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

void select(const Tensors& x, const Tensor& offsets, const Tensor& counts, const Tensor& starts,
            const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("select", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, indices, values, nnz);
  const auto from = arguments.read("x", x);
  arguments.check_apart();
  select_top(PlainSource{from.data()}, arguments.segments(), selecting.counts, selecting.out,
             TorchPool(arguments.segments().numel()));
}

void select_difference(const Tensors& x, const Tensors& y, const Tensor& offsets, const Tensor& counts,
                       const Tensor& starts, const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("select_difference", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, indices, values, nnz);
  const auto from = arguments.read("x", x), minus = arguments.read("y", y);
  arguments.check_apart();
  const DifferenceSource source{from.data(), minus.data()};
  select_top(source, arguments.segments(), selecting.counts, selecting.out,
             TorchPool(arguments.segments().numel()));
}

void select_by_sample(const Tensors& x, const Tensor& offsets, const Tensor& counts, const Tensor& starts,
                      const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("select_sampled", indices.device(), offsets);
  const auto* k = arguments.counts(counts);
  const Slots out = arguments.slots(indices, values, starts, nnz);
  const auto from = arguments.read("x", x);
  arguments.check_apart();
  select_sampled(from.data(), arguments.segments(), k, out, TorchPool(arguments.segments().numel()));
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) {
  m.impl("select", TORCH_BOX(&dgs::cpu::select));
  m.impl("select_difference", TORCH_BOX(&dgs::cpu::select_difference));
  m.impl("select_sampled", TORCH_BOX(&dgs::cpu::select_by_sample));
}
