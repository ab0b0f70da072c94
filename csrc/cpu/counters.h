// SPDX-License-Identifier: Apache-2.0
// How often the selections of this process had to look at an element twice. Free of torch.
#pragma once

#include <atomic>
#include <cstdint>

namespace dgs::cpu {

struct Counters {
  std::atomic<int64_t> elements{0};    // selected from
  std::atomic<int64_t> read_again{0};  // of those, the ones of segments whose estimate did not serve

  void add(int64_t looked_at, int64_t again) {
    elements.fetch_add(looked_at, std::memory_order_relaxed);
    read_again.fetch_add(again, std::memory_order_relaxed);
  }
};

inline Counters counters;

}  // namespace dgs::cpu
