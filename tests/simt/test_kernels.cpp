// SPDX-License-Identifier: Apache-2.0
// Every CUDA kernel and every host sequence of launches, executed in the emulator and compared bit for bit
// with the plain C++ of oracle.h, over shapes, values, chunk lengths and schedules. Runs under sanitizers
// (run.sh).
#include <cstdio>
#include <cstring>
#include <string>

#include "cuda/apply.h"
#include "cuda/quantize.h"
#include "cuda/step.h"
#include "emulated_launcher.h"
#include "oracle.h"
#include "problem.h"

namespace {

using dgs::Gradient;
using dgs::GradientType;
using oracle::Floats;

constexpr int kMostFailures = 20;  // then the rest is not run
int checks = 0, failures = 0;
std::string context;

void expect(bool holds, const char* what) {
  ++checks;
  if (holds) return;
  if (++failures <= kMostFailures) std::printf("FAILED %s: %s\n", context.c_str(), what);
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// A finite segment's new state must be the same bits; what a segment that is not finite leaves is scratch.
bool same_bits_where(bool finite, const Floats& a, const Floats& b) { return !finite || same_bits(a, b); }

void expect_selection(const Layout& layout, const Buffers& got, int64_t s, const oracle::Selected& want) {
  const int64_t start = layout.starts[Layout::at(s)], end = start + layout.slots(s);
  std::vector<int64_t> indices(static_cast<size_t>(layout.slots(s)),
                               -7);  // slots beyond nnz stay as they were
  Floats values(indices.size(), -7.0f);
  for (size_t j = 0; j < want.indices.size(); ++j) {
    indices[j] = layout.offsets[Layout::at(s)] + want.indices[j];
    values[j] = want.values[j];
  }
  expect(got.nnz[Layout::at(s)] == want.nnz, "nnz");
  expect(std::equal(indices.begin(), indices.end(), got.indices.begin() + start), "indices");
  expect(same_bits(values, {got.values.begin() + start, got.values.begin() + end}), "values");
}

// One pointer per segment; `list`: each segment in memory of its own, so that a sanitizer sees its ends.
class Operand {
 public:
  Operand(const Layout& layout, const Floats& flat, bool list) : layout_(layout) {
    if (list)
      for (int64_t s = 0; s < layout.size(); ++s) parts_.push_back(layout.slice(flat, s));
    else
      parts_.push_back(flat);
    list_ = list;
  }
  float* segment(int64_t s) {
    return list_ ? parts_[Layout::at(s)].data() : parts_[0].data() + layout_.offsets[Layout::at(s)];
  }
  Floats read(int64_t s) { return {segment(s), segment(s) + layout_.segment_size(s)}; }

 private:
  const Layout& layout_;
  bool list_;
  std::vector<Floats> parts_;
};

// The gradients of a layout, in three types; every fifth segment has none.
class Gradients {
 public:
  Gradients(const Layout& layout, Values kind, uint32_t seed) : floats_(layout.values(kind, seed)) {
    for (int64_t s = 0; s < layout.size(); ++s) {
      const auto type = s % 5 == 4 ? GradientType::kNone : static_cast<GradientType>(1 + s % 3);
      const int64_t begin = layout.offsets[Layout::at(s)], end = layout.offsets[Layout::at(s) + 1];
      halves_.emplace_back();
      for (int64_t i = begin; i < end; ++i)
        halves_.back().push_back(narrow(type, floats_[static_cast<size_t>(i)]));
      const void* data = floats_.data() + begin;
      if (type != GradientType::kFloat32) data = halves_.back().data();
      gradients_.push_back({type == GradientType::kNone ? nullptr : data, type});
    }
  }
  const Gradient& operator[](int64_t s) const { return gradients_[Layout::at(s)]; }
  float at(int64_t s, int64_t i, const Layout& layout) const {
    return floats_[static_cast<size_t>(layout.offsets[Layout::at(s)] + i)];
  }

 private:
  // Rounds `x` to the type (so that it is exact there) and returns its 16 bits.
  static uint16_t narrow(GradientType type, float& x) {
    if (type == GradientType::kBFloat16) {
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      bits &= 0xffff0000u;
      if (std::isnan(x)) bits = 0x7fc00000u;
      std::memcpy(&x, &bits, 4);
      return static_cast<uint16_t>(bits >> 16);
    }
    if (type != GradientType::kFloat16) return 0;
    const auto half = static_cast<_Float16>(x);
    x = static_cast<float>(half);
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    return bits;
  }

  Floats floats_;
  std::vector<std::vector<uint16_t>> halves_;
  std::vector<Gradient> gradients_;
};

struct Case {
  Layout layout;
  Values kind;
  uint32_t seed;
  int64_t chunk;
  bool list;
};

void test_select(const Case& c) {
  const Floats x = c.layout.values(c.kind, c.seed, true);
  Operand operand(c.layout, x, c.list);
  std::vector<dgs::cuda::Values> operands;
  for (int64_t s = 0; s < c.layout.size(); ++s) operands.push_back({operand.segment(s)});
  EmulatedLauncher launcher;
  Buffers exact(c.layout), sampled(c.layout);
  dgs::cuda::select_exact(launcher, c.layout.segments(), c.layout.counts.data(), operands,
                          exact.slots(c.layout), c.chunk);
  dgs::cuda::select_sampled(launcher, c.layout.segments(), c.layout.counts.data(), operands,
                            sampled.slots(c.layout), c.chunk);
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    const Floats segment = c.layout.slice(x, s);
    const int64_t k = c.layout.counts[Layout::at(s)];
    expect_selection(c.layout, exact, s, oracle::top(segment, k));
    expect_selection(c.layout, sampled, s, oracle::sampled(segment, k, c.layout.slots(s)));
  }
}

void test_select_difference(const Case& c) {
  const Floats x = c.layout.values(c.kind, c.seed), y = c.layout.values(Values::kTies, c.seed + 100);
  Operand xs(c.layout, x, c.list), ys(c.layout, y, !c.list);
  std::vector<dgs::cuda::Difference> operands;
  for (int64_t s = 0; s < c.layout.size(); ++s) operands.push_back({xs.segment(s), ys.segment(s)});
  EmulatedLauncher launcher;
  Buffers got(c.layout);
  dgs::cuda::select_exact(launcher, c.layout.segments(), c.layout.counts.data(), operands,
                          got.slots(c.layout), c.chunk);
  Floats difference(x.size());
  for (size_t i = 0; i < x.size(); ++i) difference[i] = x[i] - y[i];
  for (int64_t s = 0; s < c.layout.size(); ++s)
    expect_selection(c.layout, got, s,
                     oracle::top(c.layout.slice(difference, s), c.layout.counts[Layout::at(s)]));
}

float weight_decay_of(int64_t s) { return s % 2 == 0 ? 0.0f : 0.01f; }

void test_step_velocity(const Case& c) {
  const Gradients gradients(c.layout, c.kind, c.seed);
  const Floats w = c.layout.values(Values::kNormal, c.seed + 1),
               v = c.layout.values(Values::kTies, c.seed + 2);
  Operand ws(c.layout, w, c.list), vs(c.layout, v, c.list), out(c.layout, Floats(v.size(), -7), c.list);
  std::vector<dgs::cuda::VelocityStep> operands;
  for (int64_t s = 0; s < c.layout.size(); ++s)
    operands.push_back(
        {gradients[s], ws.segment(s), vs.segment(s), out.segment(s), 0.1f, weight_decay_of(s)});
  EmulatedLauncher launcher;
  Buffers got(c.layout);
  dgs::cuda::select_exact(launcher, c.layout.segments(), c.layout.counts.data(), operands,
                          got.slots(c.layout), c.chunk);
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    Floats u = vs.read(s);
    const Floats weight = ws.read(s);
    for (size_t i = 0; i < u.size() && gradients[s].type != GradientType::kNone; ++i) {
      const float g = gradients.at(s, static_cast<int64_t>(i), c.layout);
      u[i] = oracle::sum(u[i], oracle::product(oracle::decayed(g, weight_decay_of(s), weight[i]), 0.1f));
    }
    expect(same_bits_where(oracle::all_finite(u), out.read(s), u), "velocity_out");
    expect_selection(c.layout, got, s, oracle::top(u, c.layout.counts[Layout::at(s)]));
  }
}

void test_step_dgc(const Case& c, bool nesterov) {
  const Gradients gradients(c.layout, c.kind, c.seed);
  const Floats w = c.layout.values(Values::kNormal, c.seed + 1), zero(w.size(), -7);
  Operand ws(c.layout, w, c.list), us(c.layout, c.layout.values(c.kind, c.seed + 2), c.list);
  Operand rs(c.layout, c.layout.values(Values::kNormal, c.seed + 3), c.list);
  Operand us_out(c.layout, zero, c.list), rs_out(c.layout, zero, c.list);
  std::vector<dgs::cuda::DgcStep> operands;
  // In a segment without a gradient, a velocity that is not finite leaves the residual finite.
  const auto lr = [](int64_t s) { return s % 3 == 0 ? 0.0f : 0.05f; };
  for (int64_t s = 0; s < c.layout.size(); ++s)
    operands.push_back({gradients[s], ws.segment(s), us.segment(s), rs.segment(s), us_out.segment(s),
                        rs_out.segment(s), lr(s), weight_decay_of(s), 0.9f, 0.7f, nesterov});
  EmulatedLauncher launcher;
  Buffers got(c.layout);
  dgs::cuda::select_exact(launcher, c.layout.segments(), c.layout.counts.data(), operands,
                          got.slots(c.layout), c.chunk);
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    Floats u = us.read(s), r = rs.read(s);
    const Floats weight = ws.read(s);
    for (size_t i = 0; i < u.size() && gradients[s].type != GradientType::kNone; ++i) {
      const float g = gradients.at(s, static_cast<int64_t>(i), c.layout);
      const auto next =
          oracle::dgc(g, weight[i], {u[i], r[i]}, lr(s), weight_decay_of(s), 0.9f, 0.7f, nesterov);
      u[i] = next.u, r[i] = next.r;
    }
    const bool finite = oracle::all_finite(u) && oracle::all_finite(r);
    expect(same_bits_where(finite, us_out.read(s), u) && same_bits_where(finite, rs_out.read(s), r),
           "dgc state");
    const auto want = oracle::top(r, c.layout.counts[Layout::at(s)]);
    expect_selection(c.layout, got, s, finite ? want : oracle::Selected{-1, {}, {}});
  }
}

void test_step_dense(const Case& c) {
  const Gradients gradients(c.layout, c.kind, c.seed);
  Operand ws(c.layout, c.layout.values(Values::kNormal, c.seed + 1), c.list);
  Operand out(c.layout, Floats(static_cast<size_t>(c.layout.numel()), -7), c.list);
  std::vector<dgs::cuda::DenseStep> operands;
  for (int64_t s = 0; s < c.layout.size(); ++s)
    operands.push_back({gradients[s], ws.segment(s), out.segment(s), 0.1f, weight_decay_of(s)});
  EmulatedLauncher launcher;
  std::vector<int64_t> nnz(operands.size(), -7);
  dgs::cuda::step_dense(launcher, c.layout.segments(), operands, nnz.data(), c.chunk);
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    const Floats weight = ws.read(s);
    Floats q(weight.size(), 0.0f);
    for (size_t i = 0; i < q.size() && gradients[s].type != GradientType::kNone; ++i) {
      const float g = gradients.at(s, static_cast<int64_t>(i), c.layout);
      q[i] = oracle::product(oracle::decayed(g, weight_decay_of(s), weight[i]), 0.1f);
    }
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
  Operand velocity(c.layout, u, c.list), us(c.layout, u, c.list), rs(c.layout, r, c.list);
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
  Operand sparse(c.layout, x, c.list), dense(c.layout, x, c.list), qs(c.layout, q, true);
  std::vector<dgs::cuda::SparseAdd> sparse_operands;
  std::vector<dgs::cuda::DenseAdd> dense_operands;
  for (int64_t s = 0; s < c.layout.size(); ++s) {
    sparse_operands.push_back({sparse.segment(s)});
    dense_operands.push_back({dense.segment(s), qs.segment(s)});
  }
  EmulatedLauncher launcher;
  dgs::cuda::sparse_add(launcher, c.layout.segments(), sparse_operands, sent.entries(c.layout), subtract,
                        c.chunk);
  dgs::cuda::dense_add(launcher, c.layout.segments(), dense_operands, subtract, c.chunk);
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

void test_all(const Case& c) {
  test_select(c);
  test_select_difference(c);
  test_step_velocity(c);
  test_step_dgc(c, c.seed % 2 == 0);
  test_step_dense(c);
  test_apply(c);
  test_add(c, c.seed % 2 == 0);
  test_quantize(c);
}

struct Shape {
  const char* name;
  std::vector<int64_t> sizes;
  int64_t chunk;
};

void run_schedule(uint32_t schedule, const Shape& shape, Values kind, double density) {
  simt::config = {.seed = schedule,
                  .resident_blocks = 1 + schedule % 3,
                  .preempt_atomics = schedule % 2 == 1,
                  .hold_back = schedule % 2 == 1};
  context = std::string(shape.name) + ", values " + std::to_string(static_cast<int>(kind)) + ", density " +
            std::to_string(density) + ", schedule " + std::to_string(schedule);
  const uint32_t seed = 10 * schedule + static_cast<uint32_t>(density * 5);
  test_all({Layout(shape.sizes, density), kind, seed, shape.chunk, schedule % 2 == 0});
}

}  // namespace

// Arguments: the number of schedules, then the names of the shapes (all of them if none is named); each shape
// is run with all values and densities.
int main(int argc, char** argv) {
  const uint32_t schedules = argc > 1 ? static_cast<uint32_t>(std::strtoul(argv[1], nullptr, 10)) : 1;
  const std::vector<std::string> names(argv + std::min(argc, 2), argv + argc);
  const auto wanted = [&names](const char* name) {
    return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
  };
  const Shape shapes[] = {
      {"none", {}, 1024},
      {"empty", {0}, 1024},
      {"small", {1, 2, 0, 63, 64, 65, 300}, 64},
      {"few", {2100, 3, 0}, 2048},  // few blocks, for TSan: several tiles, chunks and segments
      {"large", {5000, 3, 0, 2500, 1, 1023}, 1024},
      {"sampled", {4097, 8193}, 16384}};
  for (uint32_t schedule = 0; schedule < schedules; ++schedule)
    for (const Shape& shape : shapes)
      for (const Values kind : kAllValues)
        for (const double density : {0.0, 0.01, 0.4, 1.0})
          if (wanted(shape.name) && failures <= kMostFailures) run_schedule(schedule, shape, kind, density);
  if (wanted("chunks"))  // more of them in a segment than a block has threads
    run_schedule(1, {"chunks", {20000, 5}, 64}, Values::kTies, 0.4);
  std::printf("kernels: %d checks, %d failed\n", checks, failures);
  return failures != 0 || checks == 0;
}
