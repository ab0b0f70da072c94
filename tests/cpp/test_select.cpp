// SPDX-License-Identifier: Apache-2.0
// Selections and steps on threads of their own, by every variant. Also built with the
// thread sanitizer (CMakeLists.txt).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/apply.h"
#include "cpu/estimate.h"
#include "cpu/select.h"
#include "kernels.h"

namespace {

using namespace dgs;
using namespace dgs::test;

// A sample that is `lie` times too large: the estimate is as wrong as one likes.
float lie;
void lying_sample(const cpu::Operand& operand, const int64_t* begins, int64_t runs, int64_t length,
                  float* out) {
  cpu::kPortable.sample(operand, begins, runs, length, out);
  const bool estimate = length == cpu::kRun;
  for (int64_t i = 0; i < runs * length && estimate; ++i) out[i] *= lie;
}

std::vector<float> rounded(std::vector<float> x) {
  for (float& value : x) value = std::round(2 * value);
  return x;
}

TEST(select_is_exact_on_threads) {
  for (const auto* loops : variants()) {
    for (const double density : {0.0, 0.02, 0.2, 0.4, 1.0}) {
      for (const bool ties : {false, true}) {
        Model model(kSizes, density);
        std::vector<float> x = normal(model.offsets.back(), 1);
        if (ties) x = rounded(std::move(x));
        select_plain(*loops, x, model, 3);
        check_selected(model, x);
      }
    }
  }
}

TEST(select_is_exact_however_wrong_the_estimate_is) {
  cpu::Loops lying = cpu::kPortable;
  lying.sample = lying_sample;
  for (const float factor : {0.0f, 1e-3f, 0.5f, 1.5f, 1e3f, std::numeric_limits<float>::infinity()}) {
    lie = factor;
    Model model(kSizes, 0.01);
    std::vector<float> x = normal(model.offsets.back(), 2);
    select_plain(lying, x, model, 2);
    check_selected(model, x);
  }
}

TEST(a_velocity_that_is_not_finite_is_seen_when_the_residual_is_read_again) {
  cpu::Loops lying = cpu::kPortable;
  lying.sample = lying_sample;
  lie = 1e3f;  // too high: both segments are read again
  Model model({5'000, 40'000}, 0.01);
  std::vector<float> u = normal(model.offsets.back(), 31), r = normal(model.offsets.back(), 32);
  std::vector<float> u_out(u.size()), r_out(r.size());
  u[7] = u[5'007] = std::numeric_limits<float>::infinity();  // no gradient: the residual stays finite
  auto operands = plain(model.parts<const float>(u));
  for (std::size_t s = 0; s < operands.size(); ++s) {
    operands[s].kind = cpu::Kind::kDgc;
    operands[s].y = r.data() + model.offsets[s];
    operands[s].x_out = u_out.data() + model.offsets[s];
    operands[s].y_out = r_out.data() + model.offsets[s];
  }
  select_from(lying, operands, model, 2);
  for (const int64_t n : model.nnz) CHECK_EQ(n, -1);
}

TEST(select_gives_up_candidates_that_are_too_many) {
  for (const auto* loops : variants()) {
    Model model({300'000, 70'000}, 0.01);
    std::vector<float> x(370'000, -1.5f);
    select_plain(*loops, x, model, 2);
    check_selected(model, x);
  }
}

TEST(segments_share_their_candidates_memory) {
  Model model(std::vector<int64_t>(9, 70'000), 0.01);
  std::vector<float> x = normal(model.offsets.back(), 21);
  std::fill(x.begin() + model.offsets[4], x.begin() + model.offsets[5], 1.0f);  // given up: too many
  x[static_cast<std::size_t>(model.offsets[6])] = std::numeric_limits<float>::infinity();
  std::size_t alone = 0, three = 0;
  std::thread([&] {
    for (const auto* loops : variants()) select_plain(*loops, x, model, 1);
    alone = cpu::Arena::of_thread().places();
  }).join();
  CHECK_EQ(alone, std::size_t{1});
  std::thread([&] {
    for (int i = 0; i < 20; ++i) select_plain(cpu::kPortable, x, model, 3);
    three = cpu::Arena::of_thread().places();
  }).join();
  CHECK(three >= 1 && three <= 4);  // one for each thread, and that of a segment whose tasks are between two
}

TEST(select_difference_recomputes_what_it_does_not_store) {
  for (const auto* loops : variants()) {
    for (const double density : {0.01, 0.4}) {
      Model model(kSizes, density);
      std::vector<float> x = normal(model.offsets.back(), 3), y = normal(model.offsets.back(), 4),
                         difference = x;
      for (std::size_t i = 0; i < x.size(); ++i) difference[i] -= y[i];
      auto operands = plain(model.parts<const float>(x));
      const auto minus = model.parts<const float>(y);
      for (std::size_t s = 0; s < minus.size(); ++s) {
        operands[s].kind = cpu::Kind::kDifference;
        operands[s].y = minus[s];
      }
      select_from(*loops, operands, model, 2);
      check_selected(model, difference);
    }
  }
}

TEST(select_sends_no_zeros) {
  for (const auto* loops : variants()) {
    for (const double density : {0.01, 0.05, 0.4, 1.0}) {
      Model model(kSizes, density);
      std::vector<float> x = normal(model.offsets.back(), 14);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = i % 1000 == 7 ? x[i] : 0.0f;
      select_plain(*loops, x, model, 2);
      check_selected(model, x);
    }
  }
}

TEST(select_names_the_segment_that_is_not_finite) {
  for (const auto* loops : variants()) {
    for (const double density : {0.0, 0.01, 0.4, 1.0}) {
      for (const std::size_t at : {0, 70'000, 139'999}) {
        Model model({9, 140'000, 9}, density);
        std::vector<float> x = normal(model.offsets.back(), 5);
        x[9 + at] = std::numeric_limits<float>::quiet_NaN();
        select_plain(*loops, x, model, 3);
        CHECK_EQ(model.nnz[0], model.counts[0]);
        CHECK_EQ(model.nnz[1], -1);
        CHECK_EQ(model.nnz[2], model.counts[2]);
      }
    }
  }
}

TEST(sampled_takes_the_first_of_what_reaches_the_threshold) {
  for (const auto* loops : variants()) {
    for (const bool ties : {false, true}) {  // so many that they pass the candidates' bound
      Model model({200'000, 5'000, 0, 70}, 0.01);
      for (int64_t& k : model.counts) k *= 2;  // twice as many as there are slots
      std::vector<float> x = normal(model.offsets.back(), 6);
      if (ties) std::fill(x.begin(), x.end(), 0.25f);
      const auto operands = plain(model.parts<const float>(x));
      select_from(*loops, operands, model, 3, true);
      for (std::size_t s = 0; s < model.counts.size(); ++s) {
        const int64_t n = model.offsets[s + 1] - model.offsets[s];
        if (n == 0) continue;
        const float threshold =
            bits_float(cpu::sampled_threshold(cpu::kPortable, operands[s], n, model.counts[s]));
        std::vector<int64_t> want;
        const int64_t room = model.starts[s + 1] - model.starts[s];
        for (int64_t i = 0; i < n && static_cast<int64_t>(want.size()) < room; ++i) {
          if (std::fabs(operands[s].x[i]) >= threshold) want.push_back(model.offsets[s] + i);
        }
        CHECK_EQ(static_cast<int64_t>(want.size()), room);
        CHECK_EQ(model.nnz[s], static_cast<int64_t>(want.size()));
        CHECK(std::equal(want.begin(), want.end(), model.indices.begin() + model.starts[s]));
      }
    }
  }
}

TEST(a_step_stores_every_element_once_and_selects_from_it) {
  for (const auto* loops : variants()) {
    Model model(kSizes, 0.01);
    const int64_t n = model.offsets.back();
    std::vector<float> grad = normal(n, 7), w = normal(n, 8), v = normal(n, 9), u(grad.size(), -1e30f),
                       want = v;
    for (std::size_t i = 0; i < v.size(); ++i) {
      const float decay = 0.01f * w[i], g = grad[i] + decay, scaled = 0.3f * g;
      want[i] += scaled;
    }
    auto operands = plain(model.parts<const float>(v));
    const auto gradients = model.parts<const float>(grad), weights = model.parts<const float>(w);
    const auto out = model.parts<float>(u);
    for (std::size_t s = 0; s < operands.size(); ++s) {
      operands[s].kind = cpu::Kind::kVelocity;
      operands[s].gradient = {gradients[s], GradientType::kFloat32};
      operands[s].weights = weights[s];
      operands[s].x_out = out[s];
      operands[s].lr = 0.3f;
      operands[s].weight_decay = 0.01f;
    }
    select_from(*loops, operands, model, 3);
    CHECK(u == want);
    check_selected(model, want);
  }
}

TEST(a_model_without_segments_or_elements_is_no_special_case) {
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{}, std::vector<int64_t>{0, 0}}) {
    Model model(sizes, 1.0);
    std::vector<float> x;
    for (const bool sampled : {false, true}) {
      select_from(cpu::loops(), plain(model.parts<const float>(x)), model, 2, sampled);
    }
    for (const int64_t n : model.nnz) CHECK_EQ(n, 0);
    CHECK(cpu::entry_ranges(model.entries(), model.segments().count).empty());
  }
}

}  // namespace
