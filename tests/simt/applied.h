// SPDX-License-Identifier: Apache-2.0
// What is done with a selection, and the sums and checks of dense updates beside it.
#pragma once

#include <cmath>

#include "cuda/apply.h"
#include "emulated_launcher.h"
#include "operands.h"

// A selection of x by the oracle, in a selection's buffers.
inline Buffers selection_of(const Layout& layout, const Floats& x) {
  Buffers buffers(layout);
  for (int64_t s = 0; s < layout.size(); ++s) {
    const auto selected = oracle::top(layout.slice(x, s), layout.counts[Layout::at(s)]);
    buffers.nnz[Layout::at(s)] = selected.nnz;
    for (size_t j = 0; j < selected.indices.size(); ++j) {
      const size_t slot = static_cast<size_t>(layout.starts[Layout::at(s)]) + j;
      buffers.indices[slot] = layout.offsets[Layout::at(s)] + selected.indices[j];
      buffers.values[slot] = j % 7 == 3 ? 0.0f : selected.values[j];  // a codec may round to zero
    }
  }
  return buffers;
}

// Calls f(segment, index within it, value) for every filled slot whose index lies in the layout.
template <class F>
inline void for_entries(const Layout& layout, const Buffers& buffers, F f) {
  for (int64_t s = 0; s < layout.size(); ++s) {
    for (int64_t j = 0; j < buffers.nnz[Layout::at(s)]; ++j) {
      const size_t slot = static_cast<size_t>(layout.starts[Layout::at(s)] + j);
      f(s, buffers.indices[slot], buffers.values[slot]);
    }
  }
}

inline void test_apply(const Case& c) {
  const Floats u = c.layout.values(Values::kNormal, c.seed + 4), r = c.layout.values(c.kind, c.seed + 5);
  const Buffers sent = selection_of(c.layout, r);
  Operand velocity(c.layout, u, c.place(0)), us(c.layout, u, c.place(1)), rs(c.layout, r, c.place(2));
  std::vector<dgs::cuda::ApplyVelocity> velocities;
  std::vector<dgs::cuda::ApplyDgc> dgcs;
  const auto masked = [&](int64_t s) { return c.layout.counts[Layout::at(s)] < c.layout.segment_size(s); };
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    velocities.push_back({velocity.segment(s), 0.3f});
    dgcs.push_back({us.segment(s), rs.segment(s), masked(s)});
  }
  EmulatedLauncher launcher;
  dgs::cuda::apply_selection(launcher, c.layout.segments(), velocities, sent.entries(c.layout), c.chunk);
  dgs::cuda::apply_selection(launcher, c.layout.segments(), dgcs, sent.entries(c.layout), c.chunk);
  Floats want_v = u, want_u = u, want_r = r;
  for_entries(c.layout, sent, [&](int64_t s, int64_t i, float q) {
    const auto at = static_cast<size_t>(i);
    want_v[at] = oracle::sum(want_v[at], -oracle::product(q, 0.3f));
    want_r[at] = oracle::sum(want_r[at], -q);
    if (masked(s) && q != 0) want_u[at] = 0;
  });
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    expect(same_bits(velocity.read(s), c.layout.slice(want_v, s)), "apply_velocity_");
    expect(same_bits(us.read(s), c.layout.slice(want_u, s)), "apply_dgc_ velocity");
    expect(same_bits(rs.read(s), c.layout.slice(want_r, s)), "apply_dgc_ residual");
  }
}

// Entries of one segment's slots may lie in another segment; those outside the layout are dropped.
inline void test_add(const Case& c, bool subtract) {
  const Floats x = c.layout.values(c.kind, c.seed + 6), q = c.layout.values(Values::kNormal, c.seed + 7);
  Buffers sent = selection_of(c.layout, q);
  for (int64_t& i : sent.indices)
    if (i >= 0) i = c.layout.numel() - 1 - i;
  if (sent.indices.size() > 2) sent.indices[0] = c.layout.numel(), sent.indices[1] = -3;
  Operand sparse(c.layout, x, c.place(0)), dense(c.layout, x, c.place(1)), qs(c.layout, q, c.place(2));
  std::vector<dgs::cuda::SparseAdd> sparse_operands;
  std::vector<dgs::cuda::DenseAdd> dense_operands;
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    sparse_operands.push_back({sparse.segment(s)});
    dense_operands.push_back({dense.segment(s), qs.segment(s), subtract});
  }
  EmulatedLauncher launcher;
  dgs::cuda::sparse_add(launcher, c.layout.segments(), sparse_operands, sent.entries(c.layout), subtract,
                        c.chunk);
  dgs::cuda::dense_add(launcher, c.layout.segments(), dense_operands);
  const auto added = [subtract](float a, float b) {
    return oracle::flush(oracle::sum(a, subtract ? -b : b));
  };
  Floats want = x;
  for_entries(c.layout, sent, [&](int64_t, int64_t i, float v) {
    if (i >= 0 && i < c.layout.numel()) want[static_cast<size_t>(i)] = added(want[static_cast<size_t>(i)], v);
  });
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    const bool finite = oracle::all_finite(c.layout.slice(x, s));
    expect(same_bits_where(finite, sparse.read(s), c.layout.slice(want, s)), "sparse_add_");
    Floats sum = c.layout.slice(x, s);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] = added(sum[i], qs.read(s)[i]);
    expect(same_bits_where(finite, dense.read(s), sum), "dense_add_");
  }
}

// The first flat index at which x - q is not finite, among the entries of a selection and everywhere.
inline void test_overflow(const Case& c) {
  const Floats x = c.layout.values(c.kind, c.seed + 6), q = c.layout.values(Values::kNormal, c.seed + 7);
  const Buffers sent = selection_of(c.layout, q);
  Operand xs(c.layout, x, c.place(0)), qs(c.layout, q, c.place(1));
  int64_t first = 7, sparse = -1, dense = -1;
  const dgs::cuda::Lowest lowest{reinterpret_cast<dgs::cuda::Count*>(&first)};
  std::vector<dgs::cuda::SparseMinuend> minuends;
  std::vector<dgs::cuda::DenseDifference> differences;
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    minuends.push_back({xs.segment(s)});
    differences.push_back({xs.segment(s), qs.segment(s), c.layout.offsets[Layout::at(s)], lowest});
  }
  for_entries(c.layout, sent, [&](int64_t, int64_t i, float v) {
    if (sparse < 0 && !std::isfinite(x[static_cast<size_t>(i)] - v)) sparse = i;
  });
  for (size_t i = 0; i < x.size() && dense < 0; ++i)
    if (!std::isfinite(x[i] - q[i])) dense = static_cast<int64_t>(i);
  EmulatedLauncher launcher;
  dgs::cuda::sparse_overflow(launcher, c.layout.segments(), minuends, sent.entries(c.layout), lowest,
                             c.chunk);
  expect(first == sparse, "sparse_overflow");
  dgs::cuda::dense_overflow(launcher, c.layout.segments(), differences, lowest);
  expect(first == dense, "dense_overflow");
}
