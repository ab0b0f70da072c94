// SPDX-License-Identifier: Apache-2.0
// The steps and the difference of a pull: what they compute, store and select.
#pragma once

#include "cuda/select.h"
#include "cuda/step.h"
#include "selections.h"

inline void test_select_difference(const Case& c) {
  const Floats x = c.layout.values(c.kind, c.seed), y = c.layout.values(Values::kTies, c.seed + 100);
  Operand xs(c.layout, x, c.place(0)), ys(c.layout, y, c.place(1));
  std::vector<dgs::cuda::Difference> operands;
  for (int64_t s = 0; s < c.layout.size(); ++s) operands.push_back({xs.segment(s), ys.segment(s)});
  Floats difference(x.size());
  for (size_t i = 0; i < x.size(); ++i) difference[i] = x[i] - y[i];
  expect_selections(c, operands, difference);
}

inline float weight_decay_of(int64_t s) { return s % 2 == 0 ? 0.0f : 0.01f; }

inline std::vector<bool> finite_segments(const Layout& layout, const Floats& x) {
  std::vector<bool> finite;
  for (int64_t s = 0; s < layout.size(); ++s) finite.push_back(oracle::all_finite(layout.slice(x, s)));
  return finite;
}

inline void test_step_velocity(const Case& c) {
  const Layout& layout = c.layout;
  Gradients gradients(layout, c.kind, c.seed, c.place(3));
  const Floats w = layout.values(Values::kNormal, c.seed + 1), v = layout.values(Values::kTies, c.seed + 2);
  Operand ws(layout, w, c.place(0)), vs(layout, v, c.place(1)), out(layout, Floats(v.size(), -7), c.place(2));
  std::vector<dgs::cuda::VelocityStep> operands;
  Floats u = v;
  for (int64_t s = 0; s < layout.size(); ++s) {
    operands.push_back(
        {gradients[s], ws.segment(s), vs.segment(s), out.segment(s), 0.1f, weight_decay_of(s)});
    const auto begin = static_cast<size_t>(layout.offsets[Layout::at(s)]);
    for (size_t i = 0; i < static_cast<size_t>(layout.segment_size(s)) && gradients.has(s); ++i) {
      const float g = oracle::decayed(gradients.at(s, i), weight_decay_of(s), w[begin + i]);
      u[begin + i] = oracle::sum(u[begin + i], oracle::product(g, 0.1f));
    }
  }
  expect_selections(c, operands, u);
  const auto finite = finite_segments(layout, u);
  for (int64_t s = 0; s < layout.size(); ++s)
    expect(same_bits_where(finite[Layout::at(s)], out.read(s), layout.slice(u, s)), "velocity_out");
}

inline void test_step_dgc(const Case& c, bool nesterov) {
  const Layout& layout = c.layout;
  Gradients gradients(layout, c.kind, c.seed, c.place(5));
  const Floats w = layout.values(Values::kNormal, c.seed + 1), empty(w.size(), -7);
  Floats u = layout.values(c.kind, c.seed + 2), r = layout.values(Values::kNormal, c.seed + 3);
  Operand ws(layout, w, c.place(0)), us(layout, u, c.place(1)), rs(layout, r, c.place(2));
  Operand us_out(layout, empty, c.place(3)), rs_out(layout, empty, c.place(4));
  std::vector<dgs::cuda::DgcStep> operands;
  // In a segment without a gradient, a velocity that is not finite leaves the residual finite.
  const auto lr = [](int64_t s) { return s % 3 == 0 ? 0.0f : 0.05f; };
  for (int64_t s = 0; s < layout.size(); ++s) {
    operands.push_back({gradients[s], ws.segment(s), us.segment(s), rs.segment(s), us_out.segment(s),
                        rs_out.segment(s), lr(s), weight_decay_of(s), 0.9f, 0.7f, nesterov});
    const auto begin = static_cast<size_t>(layout.offsets[Layout::at(s)]);
    for (size_t i = begin; i < begin + static_cast<size_t>(layout.segment_size(s)) && gradients.has(s); ++i) {
      const auto next = oracle::dgc(gradients.at(s, i - begin), w[i], {u[i], r[i]}, lr(s), weight_decay_of(s),
                                    0.9f, 0.7f, nesterov);
      u[i] = next.u, r[i] = next.r;
    }
  }
  auto finite = finite_segments(layout, u);
  const auto finite_r = finite_segments(layout, r);
  for (size_t s = 0; s < finite.size(); ++s) finite[s] = finite[s] && finite_r[s];
  expect_selections(c, operands, r, finite);
  for (int64_t s = 0; s < layout.size(); ++s) {
    const bool ok = finite[Layout::at(s)];
    expect(same_bits_where(ok, us_out.read(s), layout.slice(u, s)), "dgc velocity");
    expect(same_bits_where(ok, rs_out.read(s), layout.slice(r, s)), "dgc residual");
  }
}

inline void test_step_dense(const Case& c) {
  const Layout& layout = c.layout;
  Gradients gradients(layout, c.kind, c.seed, c.place(2));
  Operand ws(layout, layout.values(Values::kNormal, c.seed + 1), c.place(0));
  Operand out(layout, Floats(static_cast<size_t>(layout.numel()), -7), c.place(1));
  std::vector<dgs::cuda::DenseStep> operands;
  for (int64_t s = 0; s < layout.size(); ++s)
    operands.push_back({gradients[s], ws.segment(s), out.segment(s), 0.1f, weight_decay_of(s)});
  EmulatedLauncher launcher;
  std::vector<int64_t> nnz(operands.size(), -7);
  dgs::cuda::step_dense(launcher, layout.segments(), operands, nnz.data());
  for (int64_t s = 0; s < layout.size(); ++s) {
    const Floats weight = ws.read(s);
    Floats q(weight.size(), 0.0f);
    for (size_t i = 0; i < q.size() && gradients.has(s); ++i)
      q[i] = oracle::flush(
          oracle::product(oracle::decayed(gradients.at(s, i), weight_decay_of(s), weight[i]), 0.1f));
    const bool finite = oracle::all_finite(q);
    expect(same_bits_where(finite, out.read(s), q), "dense step");
    expect(nnz[Layout::at(s)] == (finite ? static_cast<int64_t>(q.size()) : -1), "dense nnz");
  }
}
