// SPDX-License-Identifier: Apache-2.0
// Where the candidates of one call lie. Free of torch.
#pragma once

#include <cstdint>
#include <memory>

#include "cpu/loops.h"

namespace dgs::cpu {

// Kept by each thread that calls ops, so that a step in a training loop allocates nothing. Never initialised:
// only what candidates were written to takes up memory.
class Arena {
 public:
  // Room for `size` candidates, until the next call.
  Candidates reserve(int64_t size) {
    if (size > size_) {
      size_ = 0;
      values_ = std::make_unique_for_overwrite<float[]>(size);
      at_ = std::make_unique_for_overwrite<uint32_t[]>(size);
      size_ = size;
    }
    return {values_.get(), at_.get()};
  }

  static Arena& of_thread() {
    thread_local Arena arena;
    return arena;
  }

 private:
  int64_t size_ = 0;
  std::unique_ptr<float[]> values_;
  std::unique_ptr<uint32_t[]> at_;
};

}  // namespace dgs::cpu
