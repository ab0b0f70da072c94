// SPDX-License-Identifier: Apache-2.0
// Every CUDA kernel and every host sequence of launches, executed in the emulator and compared bit for bit
// with the plain C++ of oracle.h, over shapes, values, chunk lengths and schedules. Runs under sanitizers
// (run.sh).
#include <cstdio>
#include <string>

#include "cuda/apply.h"
#include "cuda/quantize.h"
#include "cuda/quantize_blocks.h"
#include "cuda/step.h"
#include "emulated_launcher.h"
#include "operands.h"
#include "selections.h"
#include "shapes.h"

namespace {

void test_select_difference(const Case& c) {
  const Floats x = c.layout.values(c.kind, c.seed), y = c.layout.values(Values::kTies, c.seed + 100);
  Operand xs(c.layout, x, c.place(0)), ys(c.layout, y, c.place(1));
  std::vector<dgs::cuda::Difference> operands;
  for (int64_t s = 0; s < c.layout.size(); ++s) operands.push_back({xs.segment(s), ys.segment(s)});
  Floats difference(x.size());
  for (size_t i = 0; i < x.size(); ++i) difference[i] = x[i] - y[i];
  expect_selections(c, operands, difference);
}

float weight_decay_of(int64_t s) { return s % 2 == 0 ? 0.0f : 0.01f; }

std::vector<bool> finite_segments(const Layout& layout, const Floats& x) {
  std::vector<bool> finite;
  for (int64_t s = 0; s < layout.size(); ++s) finite.push_back(oracle::all_finite(layout.slice(x, s)));
  return finite;
}

void test_step_velocity(const Case& c) {
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

void test_step_dgc(const Case& c, bool nesterov) {
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

void test_step_dense(const Case& c) {
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

// A selection of x by the oracle, in a selection's buffers.
Buffers selection_of(const Layout& layout, const Floats& x) {
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
void for_entries(const Layout& layout, const Buffers& buffers, F f) {
  for (int64_t s = 0; s < layout.size(); ++s) {
    for (int64_t j = 0; j < buffers.nnz[Layout::at(s)]; ++j) {
      const size_t slot = static_cast<size_t>(layout.starts[Layout::at(s)] + j);
      f(s, buffers.indices[slot], buffers.values[slot]);
    }
  }
}

void test_apply(const Case& c) {
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
void test_add(const Case& c, bool subtract) {
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
void test_overflow(const Case& c) {
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

// float16 by the compiler's own type, bfloat16 by the definition of rounding to nearest even.
float rounded(float x, dgs::Codec codec) {
  if (codec == dgs::Codec::kFloat32) return x;
  if (codec == dgs::Codec::kFloat16)
    return static_cast<float>(static_cast<_Float16>(std::clamp(x, -65504.0f, 65504.0f)));
  int exponent = 0;
  std::frexp(x, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent, -125) - 8), limit = std::ldexp(255.0, 120);
  return static_cast<float>(std::clamp(std::nearbyint(x / unit) * unit, -limit, limit));
}

void test_quantize(const Case& c) {
  if (c.kind == Values::kNotFinite) return;  // clamp's view of a NaN is another
  for (const auto codec : {dgs::Codec::kFloat32, dgs::Codec::kFloat16, dgs::Codec::kBFloat16}) {
    Floats x = c.layout.values(c.kind, c.seed + 8), want;
    for (const float v : x) want.push_back(oracle::flush(rounded(v, codec)));
    EmulatedLauncher launcher;
    dgs::cuda::quantize(launcher, x.data(), static_cast<int64_t>(x.size()), codec);
    expect(x == want, "quantize_");
  }
}

// One block of values, by the formulas of block_codecs.h, which test_twins.py compares with the twins.
void quantize_block(float* x, size_t n, dgs::BlockCodec codec) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, dgs::codable(x[i]));
  if (largest == 0) {
    for (size_t i = 0; i < n; ++i) x[i] = std::isnan(x[i]) ? x[i] : 0.0f;
    return;
  }
  dgs::BlockSums sums;
  for (size_t i = 0; i < n; ++i) {
    sums.sum += dgs::in_units_of(largest, dgs::codable(x[i]));
    sums.count += dgs::codable(x[i]) != 0;
  }
  const uint32_t scale = dgs::block_scale(codec, largest, sums);
  for (size_t i = 0; i < n; ++i) x[i] = dgs::quantized(x[i], codec, scale);
}

// A whole block and less of each segment's slots is filled, or the segment has failed.
void test_quantize_blocks(const Case& c) {
  Buffers sent(c.layout);
  for (size_t j = 0; j < sent.values.size(); ++j) sent.values[j] = std::ldexp(1.0f + j % 5, j % 9 - 4);
  const Floats x = c.layout.values(c.kind, c.seed + 9);
  std::copy_n(x.begin(), std::min(x.size(), sent.values.size()), sent.values.begin());
  for (int64_t s = 0; s < c.layout.size(); ++s)
    sent.nnz[Layout::at(s)] = (s + c.seed) % 7 == 6 ? -1 : c.layout.slots(s) - c.layout.slots(s) / 5;
  for (int64_t number = dgs::kFirstBlockCodec; number <= dgs::kLastBlockCodec; ++number) {
    const auto codec = static_cast<dgs::BlockCodec>(number);
    Floats got = sent.values, want = sent.values;
    for (int64_t s = 0; s < c.layout.size(); ++s) {
      const int64_t filled = sent.nnz[Layout::at(s)];
      for (int64_t i = 0; i < filled; i += dgs::kValueBlock)
        quantize_block(want.data() + c.layout.starts[Layout::at(s)] + i,
                       static_cast<size_t>(std::min(dgs::kValueBlock, filled - i)), codec);
    }
    EmulatedLauncher launcher;
    dgs::cuda::quantize_blocks(launcher, c.layout.segments(), got.data(), c.layout.starts.data(),
                               sent.nnz.data(), codec, std::max(c.chunk, dgs::kValueBlock));
    expect(same_bits(got, want), "quantize_blocks_");
  }
}

void test_all(const Case& c) {
  test_select_difference(c);
  test_step_velocity(c);
  test_step_dgc(c, c.seed % 2 == 0);
  test_step_dense(c);
  test_apply(c);
  test_add(c, c.seed % 2 == 0);
  test_overflow(c);
  test_quantize(c);
  test_quantize_blocks(c);
}

}  // namespace

// Arguments: the number of schedules, then the names of the shapes (all of them if none is named); each shape
// is run with all values and densities.
int main(int argc, char** argv) {
  for_cases(Arguments(argc, argv), test_all);
  return report();
}
