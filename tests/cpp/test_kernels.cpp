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
#include "cpu/quantize.h"
#include "cpu/select.h"
#include "cpu/select_sampled.h"
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

// A source whose sample is `factor` times too large: the estimate is as wrong as one likes.
struct LyingSource {
  cpu::PlainSource truth;
  float factor;

  const float* peek(int64_t s, int64_t begin, int64_t n, float* scratch) const {
    for (int64_t i = 0; i < n; ++i) scratch[i] = factor * truth.x[s][begin + i];
    return scratch;
  }
  const float* store(int64_t s, int64_t begin, int64_t n, float* scratch, bool& finite) const {
    return truth.store(s, begin, n, scratch, finite);
  }
  const float* load(int64_t s, int64_t begin, int64_t n, float* scratch) const {
    return truth.load(s, begin, n, scratch);
  }
};

const std::vector<int64_t> kSizes{3, 0, 140'000, 1, 65'537, 5'000, 64};

std::vector<float> rounded(std::vector<float> x) {
  for (float& value : x) value = std::round(2 * value);
  return x;
}

TEST(select_is_exact_on_threads) {
  for (const double density : {0.0, 0.02, 0.4, 1.0}) {
    for (const bool ties : {false, true}) {
      Model model(kSizes, density);
      std::vector<float> x = normal(model.offsets.back(), 1);
      if (ties) x = rounded(std::move(x));
      const auto parts = model.parts<const float>(x);
      cpu::select_top(cpu::PlainSource{parts.data()}, model.segments(), model.counts.data(), model.slots(),
                      Threads{3});
      check_selected(model, x);
    }
  }
}

TEST(select_is_exact_however_wrong_the_estimate_is) {
  for (const float factor : {0.0f, 1e-3f, 0.5f, 1.5f, 1e3f, std::numeric_limits<float>::infinity()}) {
    Model model(kSizes, 0.01);
    std::vector<float> x = normal(model.offsets.back(), 2);
    const auto parts = model.parts<const float>(x);
    const LyingSource source{{parts.data()}, factor};
    cpu::select_top(source, model.segments(), model.counts.data(), model.slots(), Threads{2});
    check_selected(model, x);
  }
}

TEST(select_gives_up_candidates_that_are_too_many) {
  Model model({300'000, 70'000}, 0.01);
  std::vector<float> x(370'000, -1.5f);
  const auto parts = model.parts<const float>(x);
  cpu::select_top(cpu::PlainSource{parts.data()}, model.segments(), model.counts.data(), model.slots(),
                  Threads{2});
  check_selected(model, x);
}

TEST(select_difference_recomputes_what_it_does_not_store) {
  for (const double density : {0.01, 0.4}) {
    Model model(kSizes, density);
    std::vector<float> x = normal(model.offsets.back(), 3), y = normal(model.offsets.back(), 4),
                       difference = x;
    for (std::size_t i = 0; i < x.size(); ++i) difference[i] -= y[i];
    const auto px = model.parts<const float>(x), py = model.parts<const float>(y);
    const cpu::DifferenceSource source{px.data(), py.data()};
    cpu::select_top(source, model.segments(), model.counts.data(), model.slots(), Threads{2});
    check_selected(model, difference);
  }
}

TEST(select_sends_no_zeros) {
  for (const double density : {0.01, 0.05, 0.4, 1.0}) {
    Model model(kSizes, density);
    std::vector<float> x = normal(model.offsets.back(), 14);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = i % 1000 == 7 ? x[i] : 0.0f;
    const auto parts = model.parts<const float>(x);
    cpu::select_top(cpu::PlainSource{parts.data()}, model.segments(), model.counts.data(), model.slots(),
                    Threads{2});
    check_selected(model, x);
  }
}

TEST(select_names_the_segment_that_is_not_finite) {
  for (const double density : {0.0, 0.01, 0.4, 1.0}) {
    for (const std::size_t at : {0, 70'000, 139'999}) {
      Model model({9, 140'000, 9}, density);
      std::vector<float> x = normal(model.offsets.back(), 5);
      x[9 + at] = std::numeric_limits<float>::quiet_NaN();
      const auto parts = model.parts<const float>(x);
      cpu::select_top(cpu::PlainSource{parts.data()}, model.segments(), model.counts.data(), model.slots(),
                      Threads{3});
      CHECK_EQ(model.nnz[0], model.counts[0]);
      CHECK_EQ(model.nnz[1], -1);
      CHECK_EQ(model.nnz[2], model.counts[2]);
    }
  }
}

TEST(select_sampled_takes_the_first_of_what_reaches_the_threshold) {
  Model model({200'000, 5'000, 0, 70}, 0.01);
  for (int64_t& k : model.counts) k *= 2;  // twice as many as there are slots
  std::vector<float> x = normal(model.offsets.back(), 6);
  const auto parts = model.parts<const float>(x);
  cpu::select_sampled(cpu::PlainSource{parts.data()}, model.segments(), model.counts.data(), model.slots(),
                      Threads{3});
  for (std::size_t s = 0; s < model.counts.size(); ++s) {
    const int64_t n = model.offsets[s + 1] - model.offsets[s];
    const float threshold = bits_float(
        cpu::sampled_threshold(cpu::PlainSource{parts.data()}, static_cast<int64_t>(s), n, model.counts[s]));
    std::vector<int64_t> want;
    const int64_t room = model.starts[s + 1] - model.starts[s];
    for (int64_t i = 0; i < n && static_cast<int64_t>(want.size()) < room; ++i) {
      if (std::fabs(parts[s][i]) >= threshold) want.push_back(model.offsets[s] + i);
    }
    CHECK_EQ(static_cast<int64_t>(want.size()), room);
    CHECK_EQ(model.nnz[s], static_cast<int64_t>(want.size()));
    CHECK(std::equal(want.begin(), want.end(), model.indices.begin() + model.starts[s]));
  }
}

TEST(a_step_stores_every_element_once_and_selects_from_it) {
  Model model(kSizes, 0.01);
  const int64_t n = model.offsets.back();
  std::vector<float> grad = normal(n, 7), w = normal(n, 8), v = normal(n, 9), u(grad.size(), -1e30f),
                     want = v;
  for (std::size_t i = 0; i < v.size(); ++i) {
    const float decay = 0.01f * w[i], g = grad[i] + decay, scaled = 0.3f * g;
    want[i] += scaled;
  }
  const std::size_t segments = model.counts.size();
  std::vector<Gradient> grads;
  for (const float* part : model.parts<const float>(grad)) grads.push_back({part, GradientType::kFloat32});
  const std::vector<float> lr(segments, 0.3f), decay(segments, 0.01f);
  const auto pw = model.parts<const float>(w), pv = model.parts<const float>(v);
  const auto pu = model.parts<float>(u);
  const cpu::VelocitySource source{grads.data(), pw.data(), pv.data(), pu.data(), lr.data(), decay.data()};
  cpu::select_top(source, model.segments(), model.counts.data(), model.slots(), Threads{3});
  CHECK(u == want);
  check_selected(model, want);
}

TEST(entries_are_applied_on_threads) {
  Model model(kSizes, 0.5);
  std::vector<float> x = normal(model.offsets.back(), 10);
  const auto parts = model.parts<const float>(x);
  cpu::select_top(cpu::PlainSource{parts.data()}, model.segments(), model.counts.data(), model.slots(),
                  Threads{1});
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
  Model model(kSizes, 1.0);
  std::vector<float> x = normal(model.offsets.back(), 12), q = normal(model.offsets.back(), 13), want = x;
  for (std::size_t i = 0; i < x.size(); ++i) want[i] += q[i];
  const auto parts = model.parts<float>(x);
  cpu::dense_add(parts.data(), model.segments(), q.data(), false, Threads{3});
  CHECK(x == want);
  for (float& value : want) value = quantized(value, Codec::kBFloat16);
  cpu::quantize(x.data(), static_cast<int64_t>(x.size()), Codec::kBFloat16, Threads{3});
  CHECK(x == want);
}

TEST(a_model_without_segments_or_elements_is_no_special_case) {
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{}, std::vector<int64_t>{0, 0}}) {
    Model model(sizes, 1.0);
    std::vector<float> x;
    const auto parts = model.parts<const float>(x);
    cpu::select_top(cpu::PlainSource{parts.data()}, model.segments(), model.counts.data(), model.slots(),
                    Threads{2});
    cpu::select_sampled(cpu::PlainSource{parts.data()}, model.segments(), model.counts.data(), model.slots(),
                        Threads{2});
    for (const int64_t n : model.nnz) CHECK_EQ(n, 0);
    CHECK(cpu::entry_ranges(model.entries(), model.segments().count).empty());
  }
}

}  // namespace
