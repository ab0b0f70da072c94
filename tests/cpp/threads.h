// SPDX-License-Identifier: Apache-2.0
// Threads for the kernels and the packer, which in the package run on torch's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "wire/pool.h"

namespace dgs::test {

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

// The same for a message.
class WireThreads final : public wire::Pool {
 public:
  explicit WireThreads(std::int64_t threads) : threads_{threads} {}
  void each(std::size_t tasks, wire::Task task) override {
    threads_(tasks, [&](std::int64_t i) { task(static_cast<std::size_t>(i)); });
  }

 private:
  Threads threads_;
};

}  // namespace dgs::test
