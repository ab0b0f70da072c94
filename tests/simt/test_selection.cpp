// SPDX-License-Identifier: Apache-2.0
// The selection alone, over shapes, values and schedules: its launches, the segments that candidates cannot
// settle, long ones. Small, so that it is built and run anew for each planted bug.
#include <cstdio>
#include <string>

#include "selections.h"
#include "shapes.h"

namespace {

void test_select(const Case& c) {
  const Floats x = c.layout.values(c.kind, c.seed, true);
  Operand operand(c.layout, x, c.place(0));
  expect_selections(c, values_of(c.layout, operand), x);
}

// Segments of 20000 elements of which 100 are wanted, and what must become of each.
struct Hard {
  const char* name;
  Floats x;
  int64_t k;
  bool again;  // candidates cannot settle it: it is read again
};

std::vector<Hard> hard_segments(uint32_t seed) {
  constexpr size_t kSize = 20000;
  constexpr int64_t kWanted = 100;
  const auto normal = [&] { return make_values(Values::kNormal, kSize, seed); };
  const int64_t runs = dgs::cuda::exact_goal(kSize, kWanted).sample / dgs::cuda::kRun;
  Floats deceiving = normal(), beyond = normal(), rows = normal();
  for (int64_t i = 0; i < 40; ++i)  // the sample sees all that is large, and takes it for common
    deceiving[static_cast<size_t>(dgs::cuda::scattered(i, runs, kSize))] = 1e6f + static_cast<float>(i);
  for (int64_t i = 0; i < runs * dgs::cuda::kRun; ++i)  // and here nothing of it
    beyond[static_cast<size_t>(dgs::cuda::scattered(i, runs, kSize))] *= 1e-6f;
  for (size_t i = 0; i < 3 * 1024; ++i) rows[4096 + i] *= 1e4f;  // all that counts in neighbouring tiles
  return {{"normal", normal(), kWanted, false},
          {"the estimate is too high", deceiving, kWanted, true},
          {"the estimate is too low", beyond, kWanted, true},
          {"ties pass the bound", Floats(kSize, -0.5f), kWanted, true},
          {"large ones in a row", rows, kWanted, false},
          {"few nonzeros", make_values(Values::kZeros, kSize, seed), kWanted, false},
          {"zeros", Floats(kSize, -0.0f), kWanted, false},
          {"nothing wanted", normal(), 0, false},
          {"too many wanted", normal(), kSize / 4 + 1, true},
          {"all wanted", normal(), kSize, true},
          {"all wanted of a few", Floats(dgs::cuda::kSmall, 1.5f), dgs::cuda::kSmall, false},
          {"a hundredth wanted", normal(), kSize / 100, false}};
}

// The segments that are read again are those that have to be, and the others are not.
void test_hard_segments(uint32_t seed, int tiles) {
  const std::vector<Hard> hard = hard_segments(seed);
  Layout layout({}, 1);
  Floats x;
  for (const Hard& h : hard) {
    layout.append(static_cast<int64_t>(h.x.size()), h.k);
    x.insert(x.end(), h.x.begin(), h.x.end());
  }
  Operand operand(layout, x, {false, 0});
  EmulatedLauncher launcher;
  Buffers got(layout);
  const auto* states = dgs::cuda::select_top(launcher, layout.segments(), layout.counts.data(), false,
                                             values_of(layout, operand), got.slots(layout), tiles);
  const std::string outer = context;
  for (int64_t s = 0; s < layout.size(); ++s) {
    const Hard& h = hard[Layout::at(s)];
    context = outer + ", " + h.name;
    expect_selection(layout, got, s, oracle::top(h.x, h.k));
    const auto goal = dgs::cuda::exact_goal(layout.segment_size(s), h.k);
    expect(dgs::cuda::among_candidates(goal, states[s]) != h.again, "read again, or not");
  }
}

// As many launches for one segment as for hundreds, and every one of those selected.
void test_launches() {
  for (const bool sampled : {false, true}) {
    std::vector<int> launches;
    for (const int64_t segments : {1, 2, 300}) {
      const Layout layout(std::vector<int64_t>(static_cast<size_t>(segments), 9), 0.3);
      const Floats x = layout.values(Values::kNormal, 1);
      Operand operand(layout, x, {true, 0});
      EmulatedLauncher launcher;
      Buffers got(layout);
      dgs::cuda::select_top(launcher, layout.segments(), layout.counts.data(), sampled,
                            values_of(layout, operand), got.slots(layout), 1);
      for (int64_t s = 0; s < segments; ++s) {
        const Floats part = layout.slice(x, s);
        const int64_t k = layout.counts[Layout::at(s)];
        expect_selection(layout, got, s,
                         sampled ? oracle::sampled(part, k, layout.slots(s)) : oracle::top(part, k));
      }
      launches.push_back(launcher.launches);
    }
    expect(launches == std::vector<int>(3, sampled ? 5 : 11), "launches");
  }
}

// Flat indices and a segment's positions beyond 2^32.
void test_far() {
  constexpr int64_t kFar = int64_t{1} << 40;
  const Layout layout({4500, 0, 300}, 0.01);
  const Floats x = layout.values(Values::kNormal, 1);
  Operand operand(layout, x, {true, 0});
  std::vector<int64_t> offsets = layout.offsets;
  for (int64_t& offset : offsets) offset += kFar;
  EmulatedLauncher launcher;
  Buffers got(layout);
  dgs::cuda::select_top(launcher, {offsets.data(), layout.size()}, layout.counts.data(), false,
                        values_of(layout, operand), got.slots(layout));
  for (int64_t& i : got.indices)
    if (i >= 0) i -= kFar;
  for (int64_t s = 0; s < layout.size(); ++s)
    expect_selection(layout, got, s, oracle::top(layout.slice(x, s), layout.counts[Layout::at(s)]));

  const int64_t ends[] = {0, 5, (int64_t{1} << 33) + 5};
  const std::vector<dgs::cuda::Values> nowhere(2, {nullptr});
  const auto plan = dgs::cuda::plan_tiles({ends, 2}, nullptr, nowhere, dgs::cuda::kTilesPerChunk);
  const dgs::cuda::Tables<dgs::cuda::Values> tables{plan.segments.data(), nowhere.data(),
                                                    plan.chunk_segment.data(), nullptr, plan.chunk_length};
  const auto last =
      static_cast<unsigned>(dgs::cuda::kTilesPerChunk + (int64_t{1} << 33) / dgs::cuda::kTile) - 1;
  const dgs::cuda::Tile tile = tables.tile(last);
  expect(tile.s == 1 && tile.first == (int64_t{1} << 33) - dgs::cuda::kTile, "a tile beyond 2^32");
  expect(tile.begin == 0 && tile.end == dgs::cuda::kTile, "its bounds");
}

}  // namespace

// Arguments: as test_kernels', and hard, launches, far, chunks, race.
int main(int argc, char** argv) {
  const Arguments arguments(argc, argv);
  for_cases(arguments, test_select);
  for (uint32_t schedule = 0; schedule < arguments.schedules; ++schedule) {
    set_schedule(schedule, "hard");
    if (arguments.wanted("hard"))
      test_hard_segments(schedule, schedule % 2 == 0 ? dgs::cuda::kTilesPerChunk : 3);
  }
  set_schedule(1, "launches");
  if (arguments.wanted("launches")) test_launches();
  set_schedule(1, "far");
  if (arguments.wanted("far")) test_far();
  set_schedule(1, "chunks");  // more of them in a segment than a block has threads
  if (arguments.wanted("chunks"))
    test_select({Layout({257 * dgs::cuda::kTile, 5}, 0.01), Values::kTies, 3, 64, 1, true});
  set_schedule(0, "race");  // as little as shows one
  if (arguments.named("race")) test_select({Layout({4500, 60}, 0.1), Values::kNormal, 3, 64, 2, true});
  return report();
}
