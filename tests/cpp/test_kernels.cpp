// SPDX-License-Identifier: Apache-2.0
// The CPU kernels on threads of their own, against loops that say plainly what is meant. Also built with the
// thread sanitizer (CMakeLists.txt).
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/apply.h"
#include "cpu/capability.h"
#include "cpu/select.h"
#include "cpu/step.h"

namespace {

using namespace dgs;

// A pool of threads that live for one call and take the tasks from the last to the first.
struct Threads {
  int64_t threads;

  template <class Body>
  void operator()(std::size_t n, const Body& body) const {
    std::atomic<int64_t> left{static_cast<int64_t>(n)};
    const auto work = [&] {
      for (int64_t i; (i = left.fetch_sub(1)) > 0;) body(i - 1);
    };
    std::vector<std::thread> running;
    for (int64_t t = 1; t < threads; ++t) running.emplace_back(work);
    work();
    for (auto& thread : running) thread.join();
  }
};

struct Model {
  std::vector<int64_t> offsets{0}, counts, starts{0}, indices, nnz;
  std::vector<float> values;

  Model(const std::vector<int64_t>& sizes, double density) {
    for (const int64_t n : sizes) {
      offsets.push_back(offsets.back() + n);
      counts.push_back(std::min(n, static_cast<int64_t>(std::ceil(density * static_cast<double>(n)))));
      starts.push_back(starts.back() + counts.back());
    }
    indices.resize(static_cast<std::size_t>(starts.back()));
    values.resize(indices.size());
    nnz.resize(counts.size());
  }
  Segments segments() const { return {offsets.data(), static_cast<int64_t>(counts.size())}; }
  Slots slots() { return {indices.data(), values.data(), starts.data(), nnz.data()}; }
  Entries entries() const { return {indices.data(), values.data(), starts.data(), nnz.data()}; }
  template <class T>
  std::vector<T*> parts(std::vector<float>& flat) const {
    std::vector<T*> pointers;
    for (std::size_t s = 0; s < counts.size(); ++s) pointers.push_back(flat.data() + offsets[s]);
    return pointers;
  }
};

std::vector<float> normal(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& value : x) value = distribution(random);
  return x;
}

// The flat indices of the k largest nonzeros of x in [begin, end), ascending.
std::vector<int64_t> largest(const std::vector<float>& x, int64_t begin, int64_t end, int64_t k) {
  std::vector<int64_t> order(static_cast<std::size_t>(end - begin));
  std::iota(order.begin(), order.end(), begin);
  const auto size = [&](int64_t i) { return std::fabs(x[static_cast<std::size_t>(i)]); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return size(a) > size(b); });
  order.resize(static_cast<std::size_t>(k));
  std::erase_if(order, [&](int64_t i) { return size(i) == 0.0f; });
  std::sort(order.begin(), order.end());
  return order;
}

// That `model` holds the k largest of x in each segment.
void check_selected(const Model& model, const std::vector<float>& x) {
  for (std::size_t s = 0; s < model.counts.size(); ++s) {
    const auto want = largest(x, model.offsets[s], model.offsets[s + 1], model.counts[s]);
    CHECK_EQ(model.nnz[s], static_cast<int64_t>(want.size()));
    const auto first = static_cast<std::size_t>(model.starts[s]);
    int64_t wrong = 0;
    for (std::size_t j = 0; j < want.size() && model.nnz[s] == static_cast<int64_t>(want.size()); ++j) {
      wrong += model.indices[first + j] != want[j];
      wrong += model.values[first + j] != x[static_cast<std::size_t>(want[j])];
    }
    CHECK_EQ(wrong, 0);
  }
}

// What this machine can run; each test does it all.
std::vector<const cpu::Loops*> variants() {
  auto known = cpu::capabilities();
  std::erase(known, nullptr);
  return known;
}

std::vector<cpu::Operand> plain(const std::vector<const float*>& parts) {
  std::vector<cpu::Operand> operands;
  for (const float* x : parts) operands.push_back({.kind = cpu::Kind::kPlain, .x = x});
  return operands;
}

void select_from(const cpu::Loops& loops, const std::vector<cpu::Operand>& operands, Model& model,
                 int64_t threads, bool sampled = false) {
  cpu::select_top(loops, operands, model.segments(), {model.counts.data(), sampled}, model.slots(),
                  Threads{threads});
}

void select_plain(const cpu::Loops& loops, std::vector<float>& x, Model& model, int64_t threads) {
  select_from(loops, plain(model.parts<const float>(x)), model, threads);
}

// A sample that is `lie` times too large: the estimate is as wrong as one likes.
float lie;
void lying_sample(const cpu::Operand& operand, const int64_t* begins, int64_t runs, int64_t length,
                  float* out) {
  cpu::kPortable.sample(operand, begins, runs, length, out);
  const bool estimate = length == cpu::kRun;
  for (int64_t i = 0; i < runs * length && estimate; ++i) out[i] *= lie;
}

const std::vector<int64_t> kSizes{3, 0, 140'000, 1, 65'537, 5'000, 64};

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

// What one sweep leaves behind, in bits.
std::vector<uint32_t> swept(const cpu::Loops& loops, cpu::Operand operand, int64_t begin, int64_t end,
                            bool streamed) {
  const auto n = static_cast<std::size_t>(end);
  std::vector<float> x_out(n, -7.0f), y_out(n, -7.0f), values(n + cpu::kSpareLanes);
  std::vector<uint32_t> at(values.size());
  operand.x_out = x_out.data();
  operand.y_out = y_out.data();
  const cpu::Swept found =
      loops.sweep(operand, begin, end, float_bits(0.75f), streamed, {values.data(), at.data()});
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
      for (const int64_t begin : {0, 3, 70, 899}) {
        const auto want = swept(cpu::kPortable, operand, begin, 900, false);
        for (const auto* loops : variants()) {
          for (const bool streamed : {false, true}) {
            CHECK(swept(*loops, operand, begin, 900, streamed) == want);
          }
        }
      }
    }
  }
}

TEST(magnitudes_between_bounds_go_up_to_that_of_a_nan_of_all_ones) {
  std::vector<float> x(37, bits_float(0xffffffffu));
  x[5] = 1.0f;
  for (const auto* loops : variants()) {
    std::vector<uint32_t> found(x.size() + cpu::kSpareLanes);
    CHECK_EQ(loops->between(x.data(), 37, cpu::kInfinity, 0x7fffffffu, found.data()), 36);
    CHECK_EQ(loops->between(x.data(), 37, 0, 0x7fffffffu, found.data()), 37);
    CHECK_EQ(loops->between(x.data(), 37, 1, cpu::kInfinity - 1, found.data()), 1);
  }
}

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
