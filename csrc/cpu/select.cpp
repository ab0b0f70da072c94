// SPDX-License-Identifier: Apache-2.0
#include "cpu/select.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/operands.h"
#include "cpu/capability.h"
#include "cpu/torch_pool.h"

namespace dgs::cpu {
namespace {

void select(const Tensors& x, const Tensor& offsets, const Tensor& counts, const Tensor& starts, bool sampled,
            const Tensor& indices, const Tensor& values, const Tensor& nnz) {
  Arguments arguments("select", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const auto from = arguments.read("x", x);
  arguments.check_apart();
  std::vector<Operand> operands;
  for (const float* p : from) operands.push_back({.kind = Kind::kPlain, .x = p});
  select_top(loops(), operands, arguments.segments(), {selecting.counts, selecting.sampled}, selecting.out,
             TorchPool(arguments.segments().numel()));
}

void select_difference(const Tensors& x, const Tensors& y, const Tensor& offsets, const Tensor& counts,
                       const Tensor& starts, bool sampled, const Tensor& indices, const Tensor& values,
                       const Tensor& nnz) {
  Arguments arguments("select_difference", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  const auto from = arguments.read("x", x), minus = arguments.read("y", y);
  arguments.check_apart();
  std::vector<Operand> operands;
  for (size_t s = 0; s < from.size(); ++s) {
    operands.push_back({.kind = Kind::kDifference, .x = from[s], .y = minus[s]});
  }
  select_top(loops(), operands, arguments.segments(), {selecting.counts, selecting.sampled}, selecting.out,
             TorchPool(arguments.segments().numel()));
}

void pull(const Tensors& x, const Tensors& mirror, const Tensor& offsets, const Tensor& counts,
          const Tensor& starts, bool sampled, int64_t codec, const Tensor& indices, const Tensor& values,
          const Tensor& nnz) {
  Arguments arguments("pull", indices.device(), offsets);
  const Selecting selecting = check_selecting(arguments, counts, starts, sampled, indices, values, nnz);
  check_any_codec(arguments.call(), codec);
  const auto from = arguments.read("x", x);
  const auto minus = arguments.written("mirror", mirror);
  arguments.check_apart();
  std::vector<Operand> operands;
  for (size_t s = 0; s < from.size(); ++s) {
    operands.push_back({.kind = Kind::kDifference, .x = from[s], .y = minus[s], .y_out = minus[s]});
  }
  select_top(loops(), operands, arguments.segments(), {selecting.counts, selecting.sampled, codec},
             selecting.out, TorchPool(arguments.segments().numel()));
}

std::tuple<int64_t, int64_t> selection_counters(bool reset) {
  if (!reset) return {counters.elements.load(), counters.read_again.load()};
  return {counters.elements.exchange(0), counters.read_again.exchange(0)};
}

// Use the loops of that number (-1: leave it); returns the number of those in use, and a bit for each that
// this machine can run.
std::tuple<int64_t, int64_t> cpu_capability(int64_t use) {
  const auto known = capabilities();
  const auto size = static_cast<int64_t>(known.size());
  const Call call{"cpu_capability", torch::stable::Device(torch::headeronly::DeviceType::CPU)};
  DGS_CHECK(call, use >= -1 && use < size, "use = ", use, ", must be in [-1, ", size, ")");
  DGS_CHECK(call, use < 0 || known[use] != nullptr, "use = ", use, ", which this machine cannot run");
  if (use >= 0) use_loops(*known[use]);
  int64_t in_use = 0, available = 0;
  for (int64_t i = 0; i < size; ++i) {
    if (known[i] == &loops()) in_use = i;
    if (known[i] != nullptr) available |= int64_t{1} << i;
  }
  return {in_use, available};
}

}  // namespace
}  // namespace dgs::cpu

STABLE_TORCH_LIBRARY_IMPL(dgs, CPU, m) {
  m.impl("select", TORCH_BOX(&dgs::cpu::select));
  m.impl("select_difference", TORCH_BOX(&dgs::cpu::select_difference));
  m.impl("pull", TORCH_BOX(&dgs::cpu::pull));
}

STABLE_TORCH_LIBRARY_IMPL(dgs, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&dgs::cpu::cpu_capability));
  m.impl("selection_counters", TORCH_BOX(&dgs::cpu::selection_counters));
}
