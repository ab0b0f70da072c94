// SPDX-License-Identifier: Apache-2.0
// What the kernels see of an op's operands: plain pointers, one per segment of the layout. Free of torch.
#pragma once

#include <cstdint>

namespace dgs {

// The layout: segment s is the range offsets[s] .. offsets[s + 1] of the flat vector of numel() elements.
struct Segments {
  const int64_t* offsets = nullptr;  // [count + 1], offsets[0] == 0, non-decreasing
  int64_t count = 0;

  int64_t numel() const { return offsets[count]; }
  int64_t size(int64_t s) const { return offsets[s + 1] - offsets[s]; }
};

// kNone: the segment has no gradient.
enum class GradientType : int32_t { kNone = 0, kFloat32 = 1, kFloat16 = 2, kBFloat16 = 3 };

// Bytes of a value.
constexpr int64_t width(GradientType type) {
  if (type == GradientType::kNone) return 0;
  return type == GradientType::kFloat32 ? 4 : 2;
}

// The gradient of one segment.
struct Gradient {
  const void* data = nullptr;
  GradientType type = GradientType::kNone;
};

// A selection's buffers: segment s owns the slots starts[s] .. starts[s + 1], of which the first nnz[s] are
// filled. indices, values and nnz lie on the op's device, starts always on the host.
struct Slots {
  int64_t* indices = nullptr;       // [capacity]
  float* values = nullptr;          // [capacity]
  const int64_t* starts = nullptr;  // [segments + 1], non-decreasing, starts[segments] <= capacity
  int64_t* nnz = nullptr;           // [segments], -1: the segment holds a value that is not finite

  int64_t size(int64_t s) const { return starts[s + 1] - starts[s]; }
};

// The same where the selection is read.
struct Entries {
  const int64_t* indices = nullptr;
  const float* values = nullptr;
  const int64_t* starts = nullptr;
  const int64_t* nnz = nullptr;
};

}  // namespace dgs
