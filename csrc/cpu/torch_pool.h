// SPDX-License-Identifier: Apache-2.0
// torch's own threads as a pool (chunks.h): torch.set_num_threads decides how many.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "cpu/denormals.h"

namespace dgs::cpu {

// work: how many elements the op has for all its tasks. Waking threads costs more than a small model does.
class TorchPool {
 public:
  explicit TorchPool(int64_t work) : most_(std::max<int64_t>(1, work / kWorthAThread)) {}

  template <class Body>
  void operator()(int64_t n, const Body& body) const {
    const int64_t threads = std::min({n, most_, static_cast<int64_t>(torch::stable::get_num_threads())});
    if (threads <= 1) {
      const KeepDenormals kept;
      for (int64_t i = 0; i < n; ++i) body(i);
      return;
    }
    // Each thread takes the next task when it is done with one: on shared cores equal shares are not equal
    // times.
    std::atomic<int64_t> next{0};
    torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      const KeepDenormals kept;
      for (; begin < end; ++begin) {
        for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) body(i);
      }
    });
  }

 private:
  static constexpr int64_t kWorthAThread = 1 << 15;
  int64_t most_;
};

}  // namespace dgs::cpu
