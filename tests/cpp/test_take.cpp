// SPDX-License-Identifier: Apache-2.0
// What is selected, quantised and taken out at once against the same one after the other, on threads, by
// every variant, and with estimates as wrong as one likes. Also built with the thread sanitizer
// (CMakeLists.txt).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/apply.h"
#include "cpu/estimate.h"
#include "cpu/select.h"
#include "kernels.h"

namespace {

using namespace dgs;
using namespace dgs::test;

constexpr float kKeep = 0.3f;

// A sample that is `lie` times too large.
float lie = 1.0f;
void lying_sample(const cpu::Operand& operand, const int64_t* begins, int64_t runs, int64_t length,
                  float* out) {
  cpu::kPortable.sample(operand, begins, runs, length, out);
  for (int64_t i = 0; i < runs * length; ++i) out[i] *= lie;
}

// One op on a state of its own.
struct Work {
  Model model;
  std::vector<float> x, y, x_out, y_out;
  std::vector<cpu::Operand> operands;

  Work(cpu::Kind kind, const std::vector<int64_t>& sizes, double density, bool ties) : model(sizes, density) {
    static const std::vector<float> some = normal(220'000, 1), others = normal(220'000, 2);  // made once
    const int64_t n = model.offsets.back();
    x.assign(some.begin(), some.begin() + n), y.assign(others.begin(), others.begin() + n);
    x_out.assign(x.size(), -1e30f), y_out = y;
    for (float& value : x) value = ties ? std::round(9 * value) / 9 : value;
    if (ties) y.assign(y.size(), 0.25f), y_out = y;
    for (std::size_t s = 0; s < model.counts.size(); ++s) {
      const auto at = static_cast<std::size_t>(model.offsets[s]);
      cpu::Operand operand{.kind = kind, .x = x.data() + at, .y = y.data() + at, .x_out = x_out.data() + at};
      operand.y_out = y_out.data() + at;
      if (kind == cpu::Kind::kDifference) operand.y = operand.y_out;
      operand.keep = kKeep;
      operand.masked = model.counts[s] < model.offsets[s + 1] - model.offsets[s];
      operands.push_back(operand);
    }
  }

  void run(const cpu::Loops& loops, int64_t threads, cpu::CodecNumber codec, bool sampled) {
    cpu::select_top(loops, operands, model.segments(), {model.counts.data(), sampled, codec}, model.slots(),
                    Threads{threads});
  }

  // What the op does when it is asked to send, by the ops of apply.h.
  void take_out(const cpu::Loops& loops, cpu::Kind kind, Codec codec) {
    const Threads one{1};
    for (std::size_t s = 0; s < model.counts.size(); ++s) {
      loops.quantize(model.values.data() + model.starts[s], std::max<int64_t>(model.nnz[s], 0), codec);
    }
    const Segments segments = model.segments();
    const auto ranges = cpu::entry_ranges(model.entries(), segments.count);
    const std::vector<float> keep(model.counts.size(), kKeep);
    const auto to_x = model.parts<float>(x_out), to_y = model.parts<float>(y_out);
    if (kind == cpu::Kind::kDifference) {
      cpu::sparse_add(to_y.data(), segments, model.entries(), ranges, false, one);
    } else if (kind == cpu::Kind::kVelocity) {
      cpu::apply_velocity(to_x.data(), keep.data(), segments, model.entries(), ranges, one);
    } else {
      cpu::apply_dgc(to_x.data(), to_y.data(), model.counts.data(), segments, model.entries(), ranges, one);
    }
  }
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_alike(const cpu::Loops& loops, const std::vector<int64_t>& sizes, double density, bool ties,
                 int64_t threads, bool sampled = false) {
  for (const auto kind : {cpu::Kind::kDifference, cpu::Kind::kVelocity, cpu::Kind::kDgc}) {
    for (const Codec codec : {Codec::kFloat32, Codec::kBFloat16}) {
      Work at_once(kind, sizes, density, ties), in_turn(kind, sizes, density, ties);
      at_once.run(loops, threads, static_cast<cpu::CodecNumber>(codec), sampled);
      in_turn.run(loops, 1, cpu::kNotSent, sampled);
      in_turn.take_out(loops, kind, codec);
      CHECK(at_once.model.nnz == in_turn.model.nnz);
      CHECK(at_once.model.indices == in_turn.model.indices);
      CHECK(same(at_once.model.values, in_turn.model.values));
      CHECK(same(at_once.x_out, in_turn.x_out));
      CHECK(same(at_once.y_out, in_turn.y_out));
    }
  }
}

TEST(what_is_taken_out_at_once_is_what_was_chosen) {
  for (const auto* loops : variants()) {
    for (const double density : {0.01, 0.2}) {
      for (const bool ties : {false, true}) check_alike(*loops, kSizes, density, ties, 3);
    }
    check_alike(*loops, kSizes, 1.0, false, 2);
  }
}

TEST(sampled_takes_out_what_found_a_slot) {
  for (const auto* loops : variants()) {
    for (const double density : {0.0, 0.01}) {  // at 0 there are none
      for (const bool ties : {false, true}) check_alike(*loops, kSizes, density, ties, 3, true);
    }
  }
}

TEST(what_is_taken_out_at_once_is_what_was_chosen_however_wrong_the_estimate_is) {
  cpu::Loops lying = cpu::kPortable;
  lying.sample = lying_sample;
  for (const float factor :
       {0.0f, 1e-3f, 0.5f, 0.95f, 1.05f, 1.5f, 1e3f, std::numeric_limits<float>::infinity()}) {
    lie = factor;
    for (const bool ties : {false, true}) check_alike(lying, {140'000, 5'000, 70'000}, 0.01, ties, 2);
  }
  lie = 1.0f;
}

TEST(many_entries_are_taken_out_by_all_threads) {
  static_assert(cpu::kSmallSelection < 67'500);
  check_alike(cpu::loops(), {150'000}, 0.45, false, 3);
  check_alike(cpu::loops(), {150'000}, 0.9, false, 3);
}

}  // namespace
