// SPDX-License-Identifier: Apache-2.0
// The inner loops of every variant, against those of the portable one.
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/loops.h"
#include "kernels.h"

namespace {

using namespace dgs;
using namespace dgs::test;

// What one sweep leaves behind, in bits.
std::vector<uint32_t> swept(const cpu::Loops& loops, cpu::Operand operand, int64_t begin, int64_t end,
                            bool streamed, uint32_t take) {
  const auto n = static_cast<std::size_t>(end);
  std::vector<float> x_out(n, -7.0f), y_out(n, -7.0f), values(n + cpu::kSpareLanes);
  std::vector<uint32_t> at(values.size());
  operand.x_out = x_out.data();
  operand.y_out = y_out.data();
  const cpu::Swept found =
      loops.sweep(operand, begin, end, {float_bits(0.75f), take}, streamed, {values.data(), at.data()});
  std::vector<uint32_t> all{static_cast<uint32_t>(found.count), found.largest};
  const auto count = static_cast<std::size_t>(found.count);
  all.insert(all.end(), at.begin(), at.begin() + static_cast<std::ptrdiff_t>(count));
  for (std::size_t i = 0; i < count; ++i) all.push_back(float_bits(values[i]));
  for (std::size_t i = 0; i < n; ++i) all.push_back(float_bits(x_out[i]));
  for (std::size_t i = 0; i < n; ++i) all.push_back(float_bits(y_out[i]));
  return all;
}

TEST(all_variants_sweep_alike_streamed_or_not_wherever_they_begin) {
  std::vector<float> x = normal(900, 21), y = normal(900, 22), w = normal(900, 23), grad = normal(900, 24);
  std::vector<uint16_t> half(900);
  for (std::size_t i = 0; i < half.size(); ++i)
    half[i] = static_cast<uint16_t>((i * 65) & 0xfbffu);  // finite
  for (const auto kind : {cpu::Kind::kPlain, cpu::Kind::kDifference, cpu::Kind::kVelocity, cpu::Kind::kDgc}) {
    for (int variation = 0; variation < 16; ++variation) {
      const auto type = static_cast<GradientType>(variation % 4);
      const void* gradient =
          type == GradientType::kFloat32 ? static_cast<const void*>(grad.data()) : half.data();
      cpu::Operand operand{.kind = kind, .x = x.data(), .y = y.data(), .gradient = {gradient, type}};
      operand.weights = w.data();
      operand.lr = 0.1f;
      operand.weight_decay = variation & 4 ? 0.01f : 0.0f;
      operand.momentum = 0.9f;
      operand.grad_scale = 0.7f;
      operand.nesterov = variation >= 8;
      operand.keep = 0.3f;
      operand.masked = variation % 2 == 0;
      const uint32_t take = variation % 3 == 0 ? cpu::kNothing : float_bits(1.0f);
      for (const int64_t begin : {0, 3, 70, 899}) {
        const auto want = swept(cpu::kPortable, operand, begin, 900, false, take);
        for (const auto* loops : variants()) {
          for (const bool streamed : {false, true}) {
            CHECK(swept(*loops, operand, begin, 900, streamed, take) == want);
          }
        }
      }
    }
  }
}

TEST(magnitudes_between_bounds_go_up_to_that_of_a_nan_of_all_ones) {
  std::vector<float> x(37, bits_float(0xffffffffu));
  x[5] = 1.0f, x[33] = 1.5f;
  for (const auto* loops : variants()) {
    std::vector<uint32_t> found(x.size() + cpu::kSpareLanes);
    CHECK_EQ(loops->within(x.data(), 37, cpu::kInfinity, 0x7fffffffu, found.data()), 35);
    CHECK_EQ(loops->within(x.data(), 37, 0, 0x7fffffffu, found.data()), 37);
    CHECK_EQ(loops->within(x.data(), 37, 1, cpu::kInfinity - 1, found.data()), 2);
    CHECK_EQ(found[0], 5u);
    CHECK_EQ(found[1], 33u);
  }
}

// What the dense step leaves behind of elements begin .. n, -7 elsewhere.
std::vector<float> scaled(const cpu::Loops& loops, const Gradient& gradient, const std::vector<float>& w,
                          float weight_decay, int64_t begin, bool streamed) {
  std::vector<float> q(w.size() + 8, -7.0f);
  const auto end = static_cast<int64_t>(w.size());
  CHECK(loops.scale(gradient, w.data(), q.data(), begin, end, 0.3f, weight_decay, streamed));
  return q;
}

TEST(all_variants_scale_alike_streamed_or_not_wherever_they_begin) {
  std::vector<float> w = normal(900, 25), grad = normal(900, 26);
  for (std::size_t i = 0; i < grad.size(); i += 3) {  // on both sides of 2^-126 times the rate
    grad[i] *= 0x1p-124f;
    w[i] = 0.0f;
  }
  for (const float weight_decay : {0.0f, 0.01f}) {
    for (const int64_t begin : {0, 3, 70, 897}) {
      std::vector<float> want(w.size() + 8, -7.0f), zeros = want;
      for (auto i = static_cast<std::size_t>(begin); i < w.size(); ++i) {
        want[i] = flush(0.3f * decayed(grad[i], weight_decay, w[i]));
        zeros[i] = 0.0f;
      }
      for (const auto* loops : variants()) {
        for (const bool streamed : {false, true}) {
          const Gradient full{grad.data(), GradientType::kFloat32};
          CHECK(scaled(*loops, full, w, weight_decay, begin, streamed) == want);
          CHECK(scaled(*loops, {}, w, weight_decay, begin, streamed) == zeros);
        }
      }
    }
  }
}

TEST(all_variants_scale_half_gradients_alike) {
  const std::vector<float> w = normal(900, 27);
  std::vector<uint16_t> half(w.size());
  for (std::size_t i = 0; i < half.size(); ++i) half[i] = static_cast<uint16_t>((i * 65) & 0xfbffu);
  for (const auto type : {GradientType::kFloat16, GradientType::kBFloat16}) {
    const Gradient gradient{half.data(), type};
    const auto want = scaled(cpu::kPortable, gradient, w, 0.01f, 5, false);
    for (const auto* loops : variants()) {
      for (const bool streamed : {false, true}) {
        CHECK(scaled(*loops, gradient, w, 0.01f, 5, streamed) == want);
      }
    }
  }
}

TEST(a_dense_result_that_is_not_finite_is_seen_wherever_it_is) {
  const std::vector<float> w(300, 0.0f);
  std::vector<float> q(w.size());
  for (const auto* loops : variants()) {
    for (const bool streamed : {false, true}) {
      for (const std::size_t at : {1, 130, 299}) {
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -3e38f}) {
          std::vector<float> grad(w.size(), 1.0f);
          grad[at] = bad;
          const Gradient gradient{grad.data(), GradientType::kFloat32};
          CHECK(!loops->scale(gradient, w.data(), q.data(), 1, 300, 2.0f, 0.0f, streamed));
        }
      }
    }
  }
}

}  // namespace
