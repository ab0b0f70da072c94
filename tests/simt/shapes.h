// SPDX-License-Identifier: Apache-2.0
// Which cases a program of the kernels' tests runs: shapes, each with all values and densities, under each
// schedule.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "operands.h"
#include "simt.h"

// The number of schedules, then the names of what is to be run: all if none is named.
struct Arguments {
  Arguments(int argc, char** argv)
      : schedules(argc > 1 ? static_cast<uint32_t>(std::strtoul(argv[1], nullptr, 10)) : 1),
        names(argv + std::min(argc, 2), argv + argc) {}
  bool named(const std::string& name) const {
    return std::find(names.begin(), names.end(), name) != names.end();
  }
  bool wanted(const std::string& name) const { return names.empty() || named(name); }

  uint32_t schedules;
  std::vector<std::string> names;
};

struct Shape {
  const char* name;
  std::vector<int64_t> sizes;
  int64_t chunk;  // of slots
  int tiles;      // of a chunk of elements
};

inline void set_schedule(uint32_t schedule, const std::string& what) {
  simt::config = {.seed = schedule,
                  .resident_blocks = 1 + schedule % 3,
                  .preempt_atomics = schedule % 2 == 1,
                  .hold_back = schedule % 2 == 1};
  context = what + ", schedule " + std::to_string(schedule);
}

// Calls test(Case) for all that is wanted, until too much has failed.
template <class Test>
void for_cases(const Arguments& arguments, const Test& test) {
  const Shape shapes[] = {{"none", {}, 1024, 1},
                          {"empty", {0}, 1024, 8},
                          {"small", {1, 2, 0, 63, 64, 65, 300}, 64, 1},
                          {"few", {4500, 3, 0}, 2048, 2},  // several tiles and segments
                          {"large", {13000, 3, 0, 8192, 1, 9001, 5}, 1024, 2}};
  for (uint32_t schedule = 0; schedule < arguments.schedules; ++schedule) {
    for (const Shape& shape : shapes) {
      for (const Values kind : kAllValues) {
        for (const double density : {0.0, 0.01, 0.4, 1.0}) {
          if (!arguments.wanted(shape.name) || failures > kMostFailures) continue;
          const uint32_t seed =
              10 * schedule + static_cast<uint32_t>(density * 5) + static_cast<uint32_t>(kind);
          set_schedule(schedule, std::string(shape.name) + ", values " +
                                     std::to_string(static_cast<int>(kind)) + ", density " +
                                     std::to_string(density));
          test({Layout(shape.sizes, density), kind, seed, shape.chunk, shape.tiles, schedule % 2 == 0});
        }
      }
    }
  }
}

// Prints the sum; returns the exit status.
inline int report() {
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures != 0 || checks == 0;
}
