// SPDX-License-Identifier: Apache-2.0
#include "cpu/select.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/operands.h"
#include "cpu/select_sampled.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

void select(const Tensors& x, const Tensor& offsets, const Tensor& counts, const Tensor& starts, bool sampled,
            const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("select", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const auto from = arguments.read("x", x);
  arguments.check_apart();
  select_from(PlainSource{from.data()}, arguments.segments(), selecting.counts, selecting.sampled,
              selecting.out, TorchPool(arguments.segments().numel()));
}

void select_difference(const Tensors& x, const Tensors& y, const Tensor& offsets, const Tensor& counts,
                       const Tensor& starts, bool sampled, const Tensor& indices, const Tensor& values,
                       const Tensor& nnz) {
  Arguments arguments("select_difference", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const auto from = arguments.read("x", x), minus = arguments.read("y", y);
  arguments.check_apart();
  const DifferenceSource source{from.data(), minus.data()};
  select_from(source, arguments.segments(), selecting.counts, selecting.sampled, selecting.out,
              TorchPool(arguments.segments().numel()));
}

std::tuple<int64_t, int64_t> selection_counters(bool reset) {
  if (!reset) return {counters.elements.load(), counters.read_again.load()};
  return {counters.elements.exchange(0), counters.read_again.exchange(0)};
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) {
  m.impl("select", TORCH_BOX(&dgs::cpu::select));
  m.impl("select_difference", TORCH_BOX(&dgs::cpu::select_difference));
}

STABLE_TORCH_LIBRARY_IMPL(dgs, CompositeExplicitAutograd, m) {
  m.impl("selection_counters", TORCH_BOX(&dgs::cpu::selection_counters));
}
