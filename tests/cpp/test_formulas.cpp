// SPDX-License-Identifier: Apache-2.0
// The element formulas against the same equations in double, where a product of two floats is exact and a sum
// rounds to float as it would have at once. What an FMA would give differs, and is looked for.
#include <algorithm>
#include <bit>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "common/formulas.h"
#include "wire/half.h"

namespace {

constexpr int kTrials = 200000;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

float mul(float a, float b) { return static_cast<float>(static_cast<double>(a) * b); }
float add(float a, float b) { return static_cast<float>(static_cast<double>(a) + b); }
float of_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
bool same(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

// Magnitudes of about 2^-30 to 2^30, so that sums and products are normal numbers.
float any_float(std::mt19937* random) {
  return std::ldexp(static_cast<float>(static_cast<std::int32_t>((*random)())),
                    static_cast<int>((*random)() % 60) - 61);
}

float any_finite(std::mt19937* random) {
  for (;;) {
    const float value = of_bits(static_cast<std::uint32_t>((*random)()));
    if (std::isfinite(value)) return value;
  }
}

TEST(steps_round_after_every_operation) {
  std::mt19937 random(1);
  int fma_would_differ = 0;
  for (int i = 0; i < kTrials; ++i) {
    const float x = any_float(&random), a = any_float(&random), b = any_float(&random);
    CHECK(same(dgs::accumulated(x, a, b), add(x, mul(a, b))));
    CHECK(same(dgs::kept(x, a, b), add(x, -mul(a, b))));
    CHECK(same(dgs::decayed(x, a, b), add(x, mul(a, b))));
    CHECK(same(dgs::dgc_velocity(x, a, b), add(mul(a, x), b)));
    CHECK(same(dgs::dgc_update(x, a, b, true), add(b, mul(a, x))));
    CHECK(same(dgs::dgc_update(x, a, b, false), x));
    fma_would_differ += !same(dgs::accumulated(x, a, b), std::fma(a, b, x));
  }
  CHECK(fma_would_differ > 1000);
}

TEST(no_weight_decay_leaves_the_gradient_alone) {
  for (const float grad : {-0.0f, 1e-40f, 3.0f}) CHECK(same(dgs::decayed(grad, 0.0f, kInfinity), grad));
}

TEST(results_below_the_normal_range_become_zero) {
  const float least = std::numeric_limits<float>::min();
  for (const float sign : {1.0f, -1.0f}) {
    CHECK(same(dgs::flush(sign * least), sign * least));
    CHECK(same(dgs::flush(sign * of_bits(0x007fffff)), 0.0f));
    CHECK(same(dgs::flush(sign * of_bits(1)), 0.0f));
    CHECK(same(dgs::added(sign * 1.5f * least, -sign * least), 0.0f));
    CHECK(same(dgs::added(sign * 2.0f * least, -sign * least), sign * least));
  }
  CHECK(same(dgs::flush(-0.0f), 0.0f));
}

TEST(magnitude_orders_as_the_absolute_value) {
  std::mt19937 random(2);
  for (int i = 0; i < kTrials; ++i) {
    const float a = any_finite(&random), b = any_finite(&random);
    CHECK_EQ(dgs::magnitude(a) < dgs::magnitude(b), std::abs(a) < std::abs(b));
  }
  CHECK(dgs::finite(std::numeric_limits<float>::max()));
  CHECK(!dgs::finite(kInfinity));
  CHECK(!dgs::finite(std::nanf("")));
}

// The number of `grid` (ascending, from 0) nearest to |x|, ties to the even position, the last one for all
// above.
float nearest(const std::vector<float>& grid, float x) {
  const auto above = std::lower_bound(grid.begin(), grid.end(), std::abs(x));
  if (above == grid.end()) return std::copysign(grid.back(), x);
  if (above == grid.begin()) return std::copysign(0.0f, x);
  const double up = static_cast<double>(*above) - std::abs(x),
               down = std::abs(x) - static_cast<double>(above[-1]);
  const bool upwards = up < down || (up == down && (above - grid.begin()) % 2 == 0);
  return std::copysign(upwards ? *above : above[-1], x);
}

std::vector<float> grid_of(unsigned largest, std::uint32_t (*to_float)(std::uint16_t)) {
  std::vector<float> grid;
  for (unsigned number = 0; number <= largest; ++number) {
    grid.push_back(of_bits(to_float(static_cast<std::uint16_t>(number))));
  }
  return grid;
}

void check_rounding(const std::vector<float>& grid, float (*rounded)(float)) {
  std::mt19937 random(3);
  for (std::size_t i = 0; i + 1 < grid.size(); ++i) {
    const float middle = grid[i] / 2 + grid[i + 1] / 2;
    for (const float x : {grid[i], middle, std::nextafter(middle, 0.0f), std::nextafter(middle, kInfinity)}) {
      CHECK(same(rounded(x), nearest(grid, x)));
      CHECK(same(rounded(-x), nearest(grid, -x)));
    }
  }
  for (int i = 0; i < kTrials; ++i) {
    const float x = any_finite(&random);
    CHECK(same(rounded(x), nearest(grid, x)));
  }
  CHECK(same(rounded(kInfinity), grid.back()));
  CHECK(same(rounded(-std::numeric_limits<float>::max()), -grid.back()));
  CHECK(std::isnan(rounded(std::nanf(""))));
}

TEST(float16_is_the_nearest_and_saturates) {
  check_rounding(grid_of(0x7bff, &dgs::wire::half_to_float), &dgs::round_float16);
}

TEST(bfloat16_is_the_nearest_and_saturates) {
  check_rounding(grid_of(0x7f7f, &dgs::wire::bfloat_to_float), &dgs::round_bfloat16);
}

TEST(half_precision_gradients_are_exact) {
  for (unsigned half = 0; half < 65536; ++half) {
    const auto number = static_cast<std::uint16_t>(half);
    CHECK(same(dgs::from_float16(number), of_bits(dgs::wire::half_to_float(number))));
    CHECK(same(dgs::from_bfloat16(number), of_bits(dgs::wire::bfloat_to_float(number))));
  }
}

// What is quantised can be packed, and the error that stays behind is never larger than what was there.
TEST(quantised_is_packable_and_shrinks_the_velocity) {
  std::mt19937 random(4);
  std::uint16_t stored = 0;
  for (int i = 0; i < kTrials; ++i) {
    const float u = dgs::flush(i % 2 == 0 ? any_float(&random) : any_finite(&random));
    const float half = dgs::quantized(u, dgs::Codec::kFloat16),
                bfloat = dgs::quantized(u, dgs::Codec::kBFloat16);
    CHECK(same(dgs::quantized(u, dgs::Codec::kFloat32), u));
    CHECK(dgs::wire::float_to_half(std::bit_cast<std::uint32_t>(half), &stored));
    CHECK(dgs::wire::float_to_bfloat(std::bit_cast<std::uint32_t>(bfloat), &stored));
    for (const float momentum : {0.0f, 0.5f, 0.9f}) {
      for (const float q : {u, half, bfloat})
        CHECK(std::abs(dgs::kept(u, 1.0f - momentum, q)) <= std::abs(u));
    }
  }
}

}  // namespace
