// SPDX-License-Identifier: Apache-2.0
// What is done with a selection, and the dense steps, on threads of their own. Also built with the
// thread sanitizer (CMakeLists.txt).
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "check.h"
#include "cpu/apply.h"
#include "cpu/capability.h"
#include "cpu/step.h"
#include "kernels.h"

namespace {

using namespace dgs;
using namespace dgs::test;

TEST(entries_are_applied_on_threads) {
  Model model(kSizes, 0.5);
  std::vector<float> x = normal(model.offsets.back(), 10);
  select_plain(cpu::loops(), x, model, 1);
  const auto ranges = cpu::entry_ranges(model.entries(), model.segments().count);
  std::vector<float> theta = normal(model.offsets.back(), 11), velocity = theta, sum = theta, kept_v = theta;
  for (std::size_t s = 0; s < model.counts.size(); ++s) {
    for (int64_t j = model.starts[s]; j < model.starts[s] + model.nnz[s]; ++j) {
      const auto slot = static_cast<std::size_t>(j), at = static_cast<std::size_t>(model.indices[slot]);
      sum[at] -= model.values[slot];
      const float share = 0.5f * model.values[slot];
      kept_v[at] -= share;
    }
  }
  const auto to = model.parts<float>(theta), v = model.parts<float>(velocity);
  const std::vector<float> keep(model.counts.size(), 0.5f);
  cpu::sparse_add(to.data(), model.segments(), model.entries(), ranges, true, Threads{3});
  cpu::apply_velocity(v.data(), keep.data(), model.segments(), model.entries(), ranges, Threads{3});
  CHECK(theta == sum);
  CHECK(velocity == kept_v);
}

TEST(the_first_slot_outside_is_found_whichever_thread_sees_it) {
  Model model({300'000}, 1.0);
  std::iota(model.indices.begin(), model.indices.end(), 0);
  model.nnz[0] = 300'000;
  const auto ranges = cpu::entry_ranges(model.entries(), 1);
  const auto inside = [](int64_t, int64_t at) { return at >= 0; };
  CHECK_EQ(cpu::first_outside(model.entries(), ranges, inside, Threads{3}), -1);
  for (const std::size_t bad : {299'999, 250'000, 70'001, 70'000}) {
    model.indices[bad] = -5;
    CHECK_EQ(cpu::first_outside(model.entries(), ranges, inside, Threads{3}), static_cast<int64_t>(bad));
  }
}

TEST(dense_sums_and_codecs_on_threads) {
  for (const auto* loops : variants()) {
    for (const Codec codec : {Codec::kFloat32, Codec::kFloat16, Codec::kBFloat16}) {
      Model model(kSizes, 1.0);
      std::vector<float> x = normal(model.offsets.back(), 12), q = normal(model.offsets.back(), 13), want = x;
      for (std::size_t i = 0; i < x.size(); ++i) want[i] += q[i];
      const auto parts = model.parts<float>(x);
      cpu::dense_add(*loops, parts.data(), model.segments(), q.data(), false, Threads{3});
      CHECK(x == want);
      for (float& value : want) value = quantized(value, codec);
      cpu::quantize(*loops, x.data(), static_cast<int64_t>(x.size()), codec, Threads{3});
      CHECK(x == want);
    }
  }
}

TEST(a_dense_step_on_threads_stores_every_element_and_names_the_segment_that_is_not_finite) {
  Model model({70'000, 0, cpu::kWorthStreaming}, 1.0);
  std::vector<float> grad(static_cast<std::size_t>(model.offsets.back()), 0.5f), q(grad.size()), want = grad;
  for (float& value : want) value = 0.25f;
  grad[7] = 0x1.cp-126f, want[7] = 0.0f;
  const auto parts = model.parts<const float>(grad);
  std::vector<Gradient> gradients;
  for (const float* part : parts) gradients.push_back({part, GradientType::kFloat32});
  const std::vector<float> lr(parts.size(), 0.5f), decay(parts.size(), 0.0f);
  const auto step = [&] {
    cpu::step_dense(cpu::loops(), gradients.data(), parts.data(), model.parts<float>(q).data(), lr.data(),
                    decay.data(), model.segments(), model.nnz.data(), Threads{3});
  };
  step();
  CHECK(q == want);
  CHECK(model.nnz == model.counts);
  grad.back() = std::numeric_limits<float>::infinity();
  step();
  CHECK_EQ(model.nnz[0], 70'000);
  CHECK_EQ(model.nnz[2], -1);
}

}  // namespace
