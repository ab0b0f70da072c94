// SPDX-License-Identifier: Apache-2.0
// Where the candidates of a call lie. Free of torch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cpu/loops.h"

namespace dgs::cpu {

// Places for the candidates of one segment each. The one given back last is the next, so that few segments'
// memory does for all, and stays in cache. Kept by each thread that calls ops, so that a step in a training
// loop allocates nothing. Never initialised: only what candidates were written to takes up memory.
class Arena {
 public:
  // From now on places are of at least `size` candidates, and none is in use.
  void begin(int64_t size) {
    if (size > size_) {
      places_.clear();
      size_ = std::max(size, size_ + size_ / 4);  // sizes that grow step by step find memory that was touched
    }
    free_.clear();
    for (const Place& place : places_) free_.push_back(place.candidates());
  }
  Candidates take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
      places_.push_back({std::make_unique_for_overwrite<float[]>(size_),
                         std::make_unique_for_overwrite<uint32_t[]>(size_)});
      return places_.back().candidates();
    }
    const Candidates taken = free_.back();
    free_.pop_back();
    return taken;
  }
  void give_back(const Candidates& place) {
    const std::lock_guard lock(mutex_);
    free_.push_back(place);
  }

  // How many have been needed at a time, since the size grew last.
  std::size_t places() const { return places_.size(); }

  static Arena& of_thread() {
    thread_local Arena arena;
    return arena;
  }

 private:
  struct Place {
    std::unique_ptr<float[]> values;
    std::unique_ptr<uint32_t[]> at;

    Candidates candidates() const { return {values.get(), at.get()}; }
  };

  std::mutex mutex_;
  int64_t size_ = 0;
  std::vector<Place> places_;
  std::vector<Candidates> free_;
};

}  // namespace dgs::cpu
