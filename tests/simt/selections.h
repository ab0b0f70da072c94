// SPDX-License-Identifier: Apache-2.0
// A selection both ways, compared with the oracle's.
#pragma once

#include "cuda/select.h"
#include "emulated_launcher.h"
#include "operands.h"

// Selects exactly and sampled, into buffers of their own, and compares with the oracle's selections of `x`; a
// segment that is not `finite` fails whatever x is there.
template <class Op>
void expect_selections(const Case& c, const std::vector<Op>& operands, const Floats& x,
                       const std::vector<bool>& finite = {}) {
  for (const bool sampled : {false, true}) {
    EmulatedLauncher launcher;
    Buffers got(c.layout);
    dgs::cuda::select_top(launcher, c.layout.segments(), c.layout.counts.data(), sampled, operands,
                          got.slots(c.layout), c.tiles);
    for (int64_t s = 0; s < c.layout.size(); ++s) {
      const Floats segment = c.layout.slice(x, s);
      const int64_t k = c.layout.counts[Layout::at(s)];
      auto want = sampled ? oracle::sampled(segment, k, c.layout.slots(s)) : oracle::top(segment, k);
      if (!finite.empty() && !finite[Layout::at(s)]) want = {-1, {}, {}};
      expect_selection(c.layout, got, s, want);
    }
  }
}

inline std::vector<dgs::cuda::Values> values_of(const Layout& layout, Operand& x) {
  std::vector<dgs::cuda::Values> operands;
  for (int64_t s = 0; s < layout.size(); ++s) operands.push_back({x.segment(s)});
  return operands;
}
