// SPDX-License-Identifier: Apache-2.0
// The launcher of select.h on a device: torch's current stream, torch's allocators, no synchronisation with
// the host. The one part of the CUDA ops that the emulator cannot execute. The tables come from host memory
// of this call, so that a CUDA graph cannot replay an op.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "common/operands.h"
#include "cuda/device.cuh"

namespace dgs::cuda {

// The device of `tensor`, argument `name` of `op`. Another operand on a device can bring a call here while
// this one is on the CPU.
inline torch::stable::Device device_of(const char* op, const char* name, const Tensor& tensor) {
  const Call call{op, tensor.device()};
  DGS_CHECK(call, tensor.is_cuda(), name, " is on ", device_name(call.device),
            ", must be on the CUDA device of the op's other operands");
  return call.device;
}

class StreamLauncher {
 public:
  explicit StreamLauncher(const torch::stable::Device& device) : device_(device), guard_(device.index()) {
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device.index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  template <class... P, class... A>
  void launch(void (*kernel)(P...), int64_t blocks, const A&... arguments) {
    kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_>>>(arguments...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void* allocate(size_t bytes) { return keep(bytes, device_, false).mutable_data_ptr(); }

  // Through pinned memory, which torch's allocator does not hand out again before the copy is done.
  void* upload(const void* data, size_t bytes) {
    Tensor pinned = keep(bytes, torch::stable::Device(torch::headeronly::DeviceType::CPU), true);
    std::memcpy(pinned.mutable_data_ptr(), data, bytes);
    Tensor copy = keep(bytes, device_, false);
    torch::stable::copy_(copy, pinned, /*non_blocking=*/true);
    return copy.mutable_data_ptr();
  }

 private:
  // Memory that lives until the op returns: torch hands it out again only to work that follows on the same
  // stream.
  Tensor keep(size_t bytes, const torch::stable::Device& device, bool pinned) {
    const int64_t size = static_cast<int64_t>(bytes);
    workspace_.push_back(
        torch::stable::empty({size}, torch::headeronly::ScalarType::Byte, std::nullopt, device, pinned));
    return workspace_.back();
  }

  torch::stable::Device device_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
  std::vector<Tensor> workspace_;
};

}  // namespace dgs::cuda
