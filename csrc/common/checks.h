// SPDX-License-Identifier: Apache-2.0
// Checks of an op's operands, shared by the CPU and the CUDA ops: they turn tensors into the pointers of
// segments.h or say op, argument, rule and value. torch's stable ABI passes std::out_of_range to Python as
// IndexError and every other exception as RuntimeError. They look at metadata and at host tensors only, never
// at data on a device.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "common/block_codecs.h"
#include "common/formulas.h"
#include "common/segments.h"

namespace dgs {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;

template <class... Parts>
std::string message(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

// One call of an op: its name, and the device on which its data must lie.
struct Call {
  const char* op;
  torch::stable::Device device;
};

// A macro, so that the parts of the message are built only when it is needed.
#define DGS_CHECK(call, holds, ...)                                                                   \
  do {                                                                                                \
    if (!(holds)) throw std::invalid_argument(::dgs::message("dgs::", (call).op, ": ", __VA_ARGS__)); \
  } while (false)

inline std::string device_name(const torch::stable::Device& device) {
  if (device.type() == torch::headeronly::DeviceType::CPU) return "cpu";
  const bool cuda = device.type() == torch::headeronly::DeviceType::CUDA;
  return message(cuda ? "cuda" : "another device", ":", device.index());
}

// The name of argument `name`, or of its element `i` (i < 0: it is no list).
inline std::string element_name(const char* name, int64_t i) {
  return i < 0 ? name : message(name, "[", i, "]");
}

inline void check_placed(const Call& call, const char* name, int64_t i, const Tensor& t) {
  const auto device = t.device();
  DGS_CHECK(call, device == call.device, element_name(name, i), " is on ", device_name(device),
            ", must be on ", device_name(call.device), " like the op's other operands");
  DGS_CHECK(call, t.is_contiguous(), element_name(name, i), " is not contiguous; pass ", name,
            ".contiguous()");
}

inline void check_dtype(const Call& call, const char* name, int64_t i, const Tensor& t, ScalarType dtype) {
  DGS_CHECK(call, t.scalar_type() == dtype, element_name(name, i), " is ", t.scalar_type(), ", must be ",
            dtype);
}

// A tensor's data; const T asks for it without a copy-on-write tensor being copied.
template <class T>
T* data(const Tensor& t) {
  if constexpr (std::is_const_v<T>)
    return static_cast<T*>(t.const_data_ptr());
  else
    return static_cast<T*>(t.mutable_data_ptr());
}

// Host metadata: a contiguous vector [n] on the CPU, whatever the op's device.
template <class T>
const T* host_vector(const Call& call, const char* name, const Tensor& t, ScalarType dtype, int64_t n,
                     const char* shape) {
  DGS_CHECK(call, t.is_cpu(), name, " is on ", device_name(t.device()),
            ", must be on cpu (it is host metadata)");
  check_dtype(call, name, -1, t, dtype);
  DGS_CHECK(call, t.dim() == 1 && t.numel() == n, name, " has ", t.numel(), " elements in ", t.dim(),
            " dimensions, must be one vector ", shape, " = [", n, "]");
  DGS_CHECK(call, t.is_contiguous(), name, " is not contiguous; pass ", name, ".contiguous()");
  return data<const T>(t);
}

inline Segments check_segments(const Call& call, const Tensor& offsets) {
  DGS_CHECK(call, offsets.numel() >= 1, "offsets is empty, must be [S + 1]");
  const auto* o =
      host_vector<int64_t>(call, "offsets", offsets, ScalarType::Long, offsets.numel(), "[S + 1]");
  const Segments segments{o, offsets.numel() - 1};
  DGS_CHECK(call, o[0] == 0, "offsets[0] = ", o[0], ", must be 0");
  for (int64_t s = 0; s < segments.count; ++s) {
    DGS_CHECK(call, o[s] <= o[s + 1], "offsets[", s + 1, "] = ", o[s + 1], " is smaller than offsets[", s,
              "] = ", o[s]);
  }
  return segments;
}

inline const int64_t* check_counts(const Call& call, const Segments& segments, const Tensor& counts) {
  const auto* k = host_vector<int64_t>(call, "counts", counts, ScalarType::Long, segments.count, "[S]");
  for (int64_t s = 0; s < segments.count; ++s) {
    DGS_CHECK(call, k[s] >= 0, "counts[", s, "] = ", k[s], " is negative");
    DGS_CHECK(call, k[s] <= segments.size(s), "counts[", s, "] = ", k[s], " is larger than segment ", s, " (",
              segments.size(s), " elements)");
  }
  return k;
}

// A float32 [S] of one scalar per segment: lr, weight_decay, momentum, keep.
inline const float* check_scalars(const Call& call, const Segments& segments, const char* name,
                                  const Tensor& t) {
  return host_vector<float>(call, name, t, ScalarType::Float, segments.count, "[S]");
}

inline const int64_t* check_starts(const Call& call, const Segments& segments, const Tensor& starts,
                                   int64_t capacity) {
  const auto* p =
      host_vector<int64_t>(call, "starts", starts, ScalarType::Long, segments.count + 1, "[S + 1]");
  DGS_CHECK(call, p[0] >= 0, "starts[0] = ", p[0], " is negative");
  for (int64_t s = 0; s < segments.count; ++s) {
    DGS_CHECK(call, p[s] <= p[s + 1], "starts[", s + 1, "] = ", p[s + 1], " is smaller than starts[", s,
              "] = ", p[s]);
  }
  DGS_CHECK(call, p[segments.count] <= capacity, "starts[", segments.count, "] = ", p[segments.count],
            " is larger than the ", capacity, " slots of indices");
  return p;
}

// Exact selection fills up to counts[s] slots of segment s.
inline void check_slots(const Call& call, const Segments& segments, const int64_t* counts,
                        const int64_t* starts) {
  for (int64_t s = 0; s < segments.count; ++s) {
    const int64_t slots = starts[s + 1] - starts[s];
    DGS_CHECK(call, slots >= counts[s], "starts gives segment ", s, " ", slots, " slots, fewer than counts[",
              s, "] = ", counts[s]);
  }
}

// A vector [n] on the op's device; T is const where the op only reads it.
template <class T>
T* device_vector(const Call& call, const char* name, const Tensor& t, ScalarType dtype, int64_t n,
                 const char* shape) {
  check_dtype(call, name, -1, t, dtype);
  DGS_CHECK(call, t.dim() == 1 && t.numel() == n, name, " has ", t.numel(), " elements in ", t.dim(),
            " dimensions, must be one vector ", shape, " = [", n, "]");
  check_placed(call, name, -1, t);
  return data<T>(t);
}

inline int64_t* check_nnz(const Call& call, const Segments& segments, const Tensor& nnz) {
  return device_vector<int64_t>(call, "nnz", nnz, ScalarType::Long, segments.count, "[S]");
}

// A selection to be written.
inline Slots check_selection(const Call& call, const Segments& segments, const Tensor& indices,
                             const Tensor& values, const Tensor& starts, const Tensor& nnz) {
  const int64_t capacity = indices.numel();
  return {device_vector<int64_t>(call, "indices", indices, ScalarType::Long, capacity, "[K]"),
          device_vector<float>(call, "values", values, ScalarType::Float, capacity, "[K] like indices"),
          check_starts(call, segments, starts, capacity), check_nnz(call, segments, nnz)};
}

// A selection to be read.
inline Entries check_entries(const Call& call, const Segments& segments, const Tensor& indices,
                             const Tensor& values, const Tensor& starts, const Tensor& nnz) {
  const int64_t capacity = indices.numel();
  return {device_vector<const int64_t>(call, "indices", indices, ScalarType::Long, capacity, "[K]"),
          device_vector<const float>(call, "values", values, ScalarType::Float, capacity, "[K] like indices"),
          check_starts(call, segments, starts, capacity),
          device_vector<const int64_t>(call, "nnz", nnz, ScalarType::Long, segments.count, "[S]")};
}

// True: `tensors` is one flat tensor [N]; false: one tensor per segment; anything else is refused.
inline bool check_flat(const Call& call, const Segments& segments, const char* name, const Tensors& tensors) {
  if (tensors.size() == 1 && tensors[0].numel() == segments.numel()) return true;
  DGS_CHECK(call, static_cast<int64_t>(tensors.size()) == segments.count, name, " has ", tensors.size(),
            " tensors, must be one flat tensor of ", segments.numel(), " elements or ", segments.count,
            " tensors, one per segment");
  return false;
}

// A model-sized float32 operand: the pointer to each segment; T is const float where the op only reads it.
template <class T>
std::vector<T*> check_operand(const Call& call, const Segments& segments, const char* name,
                              const Tensors& tensors) {
  const bool flat = check_flat(call, segments, name, tensors);
  std::vector<T*> pointers(segments.count);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i);
    check_dtype(call, name, at, tensors[i], ScalarType::Float);
    check_placed(call, name, at, tensors[i]);
    T* first = data<T>(tensors[i]);
    if (flat) {
      for (int64_t s = 0; s < segments.count; ++s) pointers[s] = first + segments.offsets[s];
    } else {
      DGS_CHECK(call, tensors[i].numel() == segments.size(at), name, "[", i, "] has ", tensors[i].numel(),
                " elements, segment ", i, " has ", segments.size(at));
      pointers[i] = first;
    }
  }
  return pointers;
}

inline GradientType check_gradient_type(const Call& call, int64_t i, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return GradientType::kFloat32;
    case ScalarType::Half:
      return GradientType::kFloat16;
    case ScalarType::BFloat16:
      return GradientType::kBFloat16;
    default:
      DGS_CHECK(call, false, "grads[", i, "] is ", t.scalar_type(), ", must be Float, Half or BFloat16");
      return GradientType::kNone;  // not reached
  }
}

// The gradients, each of its own type; an empty tensor says that the segment has none.
inline std::vector<Gradient> check_gradients(const Call& call, const Segments& segments,
                                             const Tensors& grads) {
  const bool flat = check_flat(call, segments, "grads", grads);
  std::vector<Gradient> pointers(segments.count);
  for (size_t i = 0; i < grads.size(); ++i) {
    if (grads[i].numel() == 0) continue;
    const int64_t at = static_cast<int64_t>(i);
    const GradientType type = check_gradient_type(call, at, grads[i]);
    check_placed(call, "grads", at, grads[i]);
    const char* first = data<const char>(grads[i]);
    if (flat) {
      for (int64_t s = 0; s < segments.count; ++s)
        pointers[s] = {first + width(type) * segments.offsets[s], type};
    } else {
      DGS_CHECK(call, grads[i].numel() == segments.size(at), "grads[", i, "] has ", grads[i].numel(),
                " elements, segment ", i, " has ", segments.size(at), " (an empty tensor says: no gradient)");
      pointers[i] = {first, type};
    }
  }
  return pointers;
}

inline Codec check_codec(const Call& call, int64_t codec) {
  DGS_CHECK(call, codec >= 1 && codec <= 3, "codec = ", codec,
            ", must be 1 (float32), 2 (float16) or 3 (bfloat16)");
  return static_cast<Codec>(codec);
}

inline BlockCodec check_block_codec(const Call& call, int64_t codec) {
  DGS_CHECK(call, codec >= kFirstBlockCodec && codec <= kLastBlockCodec, "codec = ", codec,
            ", must be 4 (int8), 5 (level4), 6 (level3), 7 (level2) or 8 (sign)");
  return static_cast<BlockCodec>(codec);
}

// Of any codec of values.
inline int64_t check_any_codec(const Call& call, int64_t codec) {
  DGS_CHECK(
      call, codec >= 1 && codec <= kLastBlockCodec, "codec = ", codec,
      ", must be 1 (float32), 2 (float16), 3 (bfloat16), 4 (int8), 5 (level4), 6 (level3), 7 (level2) or 8 "
      "(sign)");
  return codec;
}

}  // namespace dgs
