// SPDX-License-Identifier: Apache-2.0
// How one launch covers hundreds of tensors: segments are cut into chunks of equal length, block c works on
// chunk c. The host makes the tables and sends them, with an op's operands, in one asynchronous copy.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/segments.h"
#include "cuda/device.cuh"

namespace dgs::cuda {

// One tensor's place in the flat vector and in the selection.
struct Segment {
  int64_t offset;       // its first flat index
  int64_t size;         // its number of elements
  int64_t count;        // k: how many of them are to be selected
  int64_t start;        // its first slot
  int64_t slots;        // its number of slots
  int64_t first_chunk;  // the chunk that begins it
};

// Elements (or slots) per block. A block counts in 16-bit halves, so that it has to stay under 2^16.
constexpr int64_t kChunk = 16384;

struct Plan {
  std::vector<Segment> segments;       // [S]
  std::vector<int32_t> chunk_segment;  // [chunks]: the segment that a chunk belongs to
  int64_t chunk_length;

  int64_t chunks() const { return static_cast<int64_t>(chunk_segment.size()); }
  int64_t size() const { return static_cast<int64_t>(segments.size()); }
};

enum class Over { kElements, kSlots };

// Cuts every segment's elements, or its slots, into chunks. counts [S] and starts [S+1] may be null where an
// op has none.
inline Plan make_plan(const Segments& segments, const int64_t* counts, const int64_t* starts, Over over,
                      int64_t chunk_length) {
  Plan plan{{}, {}, chunk_length};
  plan.segments.reserve(static_cast<size_t>(segments.count));
  for (int64_t s = 0; s < segments.count; ++s) {
    const int64_t size = segments.size(s), slots = starts ? starts[s + 1] - starts[s] : 0;
    plan.segments.push_back(
        {segments.offsets[s], size, counts ? counts[s] : 0, starts ? starts[s] : 0, slots, plan.chunks()});
    const int64_t length = over == Over::kElements ? size : slots;
    const auto chunks = static_cast<size_t>((length + chunk_length - 1) / chunk_length);
    plan.chunk_segment.insert(plan.chunk_segment.end(), chunks, static_cast<int32_t>(s));
  }
  return plan;
}

// A chunk as its block sees it: elements (or slots) begin .. end of segment s.
struct Chunk {
  int64_t s, begin, end;
};

// The tables on the device. Operand: what an op reads and writes of one segment, and its arithmetic.
template <class Operand>
struct Tables {
  const Segment* segments;       // [S]
  const Operand* operands;       // [S]
  const int32_t* chunk_segment;  // [chunks]
  int64_t chunk_length;

  __device__ Chunk chunk(int64_t c, Over over) const {
    const int64_t s = chunk_segment[c];
    const Segment& segment = segments[s];
    const int64_t length = over == Over::kElements ? segment.size : segment.slots;
    const int64_t begin = (c - segment.first_chunk) * chunk_length;
    return {s, begin, begin + chunk_length < length ? begin + chunk_length : length};
  }
};

// Several arrays packed into one upload; add() returns where an array will lie.
class Parcel {
 public:
  template <class T>
  size_t add(const std::vector<T>& array) {
    const size_t at = (bytes_.size() + 15) / 16 * 16;
    bytes_.resize(at + array.size() * sizeof(T));
    if (!array.empty()) std::memcpy(bytes_.data() + at, array.data(), array.size() * sizeof(T));
    return at;
  }
  const std::vector<unsigned char>& bytes() const { return bytes_; }

 private:
  std::vector<unsigned char> bytes_;
};

template <class Operand, class Launcher>
Tables<Operand> upload_tables(Launcher& launcher, const Plan& plan, const std::vector<Operand>& operands) {
  Parcel parcel;
  const size_t segments = parcel.add(plan.segments), operand = parcel.add(operands);
  const size_t chunks = parcel.add(plan.chunk_segment);
  const auto* base =
      static_cast<const unsigned char*>(launcher.upload(parcel.bytes().data(), parcel.bytes().size()));
  return {reinterpret_cast<const Segment*>(base + segments), reinterpret_cast<const Operand*>(base + operand),
          reinterpret_cast<const int32_t*>(base + chunks), plan.chunk_length};
}

// An empty grid is not a launch.
template <class Launcher, class... P, class... A>
void launch(Launcher& launcher, void (*kernel)(P...), int64_t blocks, const A&... arguments) {
  if (blocks > 0) launcher.launch(kernel, blocks, arguments...);
}

template <class T, class Launcher>
T* allocate(Launcher& launcher, int64_t n) {
  return static_cast<T*>(launcher.allocate(static_cast<size_t>(n) * sizeof(T)));
}

}  // namespace dgs::cuda
