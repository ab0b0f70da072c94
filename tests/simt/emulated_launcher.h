// SPDX-License-Identifier: Apache-2.0
// The launcher of csrc/cuda/select.h in the emulator: launches run at once, device memory is the host's, each
// piece allocated on its own so that AddressSanitizer sees its ends. What is not initialised holds a pattern
// that reads as a NaN, or as an index far outside.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/device.cuh"

class EmulatedLauncher {
 public:
  template <class... P, class... A>
  void launch(void (*kernel)(P...), int64_t blocks, const A&... arguments) {
    ++launches;
    simt::launch(dim3(static_cast<unsigned>(blocks)), dim3(dgs::cuda::kThreads), kernel, arguments...);
  }
  void* allocate(size_t bytes) {
    memory_.emplace_back(std::malloc(bytes), std::free);
    return std::memset(memory_.back().get(), 0x7f, bytes);
  }
  void* upload(const void* data, size_t bytes) { return std::memcpy(allocate(bytes), data, bytes); }

  int launches = 0;

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> memory_;
};
