// SPDX-License-Identifier: Apache-2.0
#include "check.h"

#include <algorithm>
#include <atomic>
#include <iostream>
#include <utility>
#include <vector>

namespace check {
namespace {

struct State {
  std::vector<std::pair<std::string, void (*)()>> tests;
  // Threads check too. Relaxed, so that a check orders nothing and hides no race.
  std::atomic<std::uint64_t> checks = 0;
  std::atomic<std::uint64_t> failures = 0;
};

State& state() {
  static State it;
  return it;
}

}  // namespace

Registered::Registered(const char* name, void (*run)()) { state().tests.emplace_back(name, run); }

void passed() { state().checks.fetch_add(1, std::memory_order_relaxed); }

void failed(const char* file, int line, const std::string& what) {
  passed();
  if (state().failures.fetch_add(1, std::memory_order_relaxed) >= 20) return;
  std::cerr << (std::string(file) + ":" + std::to_string(line) + ": " + what + "\n");
}

}  // namespace check

int main(int argc, char** argv) {
  check::State& state = check::state();
  const std::vector<std::string> wanted(argv + 1, argv + argc);
  for (const auto& [name, run] : state.tests) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), name) == wanted.end()) continue;
    const std::uint64_t before = state.failures;
    run();
    std::cout << (state.failures == before ? "ok   " : "FAIL ") << name << "\n";
  }
  std::cout << state.checks << " checks, " << state.failures << " failures\n";
  return state.failures == 0 && state.checks > 0 ? 0 : 1;
}
