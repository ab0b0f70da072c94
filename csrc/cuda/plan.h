// SPDX-License-Identifier: Apache-2.0
// How one launch covers hundreds of tensors: segments are cut into chunks of equal length, block c works on
// chunk c. The host makes the tables and sends them, with an op's operands, in one asynchronous copy.
//
// Element-wise kernels cut a chunk into tiles of kTile positions, one per block. A segment's tiles begin
// `shift` positions before its first element, at a 16-byte boundary:
//
//            first tile                          last tile
//   | - - x x | x x x x | ...  | x x x x | x - - - |           - no element; shift = 2 here
//     group     group                      group
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/segments.h"
#include "cuda/device.cuh"
#include "cuda/vector.cuh"

namespace dgs::cuda {

// One tensor's place in the flat vector and in the selection.
struct Segment {
  int64_t offset;       // its first flat index
  int64_t size;         // its number of elements
  int64_t start;        // its first slot
  int64_t slots;        // its number of slots
  int64_t first_chunk;  // the chunk that begins it
  int32_t shift;        // tiles: positions before its first element
  int32_t vector;       // tiles: groups of four positions are aligned in all its arrays
};

// What a selection looks for in a segment, and how it finds candidates (candidates.h).
struct Goal {
  int64_t count;       // k: the most entries that an exact selection takes
  int64_t needed;      // with fewer candidates, the segment is read again (unless they are all its nonzeros)
  int64_t bound;       // with more candidates, too; 0: none are kept
  int64_t pool;        // where its first candidate lies among all segments'
  int64_t sample;      // how many elements the threshold is estimated from; 0: it is given
  int64_t rank;        // of the threshold in the sample, from 1
  int64_t stride;      // of the sample; 0: runs of neighbours
  uint32_t threshold;  // candidates have at least this magnitude
};

constexpr int64_t kChunk = 16384;                  // slots per block
constexpr int kItems = 4;                          // groups of a thread in its tile
constexpr int kTile = kThreads * kGroup * kItems;  // positions: 4096
constexpr int kTilesPerChunk = kWarps;  // at most: a warp takes one in the later passes of a selection

struct Plan {
  std::vector<Segment> segments;       // [S]
  std::vector<int32_t> chunk_segment;  // [chunks]: the segment that a chunk belongs to
  int64_t chunk_length;
  std::vector<Goal> goals = {};  // [S] in a selection

  int64_t chunks() const { return static_cast<int64_t>(chunk_segment.size()); }
  int64_t tiles() const { return chunks() * (chunk_length / kTile); }
  int64_t size() const { return static_cast<int64_t>(segments.size()); }

  // Appends a segment whose chunks cover `length` elements, positions or slots.
  void append(Segment segment, int64_t length) {
    segment.first_chunk = chunks();
    const auto s = static_cast<int32_t>(size());
    segments.push_back(segment);
    chunk_segment.insert(chunk_segment.end(), static_cast<size_t>((length + chunk_length - 1) / chunk_length),
                         s);
  }
};

// Cuts every segment's slots into chunks.
inline Plan plan_slots(const Segments& segments, const int64_t* starts, int64_t chunk_length) {
  Plan plan{{}, {}, chunk_length, {}};
  for (int64_t s = 0; s < segments.count; ++s) {
    const int64_t slots = starts[s + 1] - starts[s];
    plan.append({segments.offsets[s], segments.size(s), starts[s], slots, 0, 0, 0}, slots);
  }
  return plan;
}

// Cuts every segment's elements into chunks of `tiles` tiles, aligned as its operand is. starts [S+1] may be
// null where an op selects nothing.
template <class Operand>
Plan plan_tiles(const Segments& segments, const int64_t* starts, const std::vector<Operand>& operands,
                int tiles) {
  Plan plan{{}, {}, int64_t{tiles} * kTile, {}};
  for (int64_t s = 0; s < segments.count; ++s) {
    const Alignment alignment = operands[static_cast<size_t>(s)].alignment();
    const int64_t size = segments.size(s), start = starts ? starts[s] : 0;
    const int64_t slots = starts ? starts[s + 1] - start : 0;
    plan.append({segments.offsets[s], size, start, slots, 0, alignment.shift(), alignment.vector()},
                size == 0 ? 0 : size + alignment.shift());
  }
  return plan;
}

// A chunk of slots as its block sees it: slots begin .. end of segment s.
struct Chunk {
  int64_t s, begin, end;
};

// A tile as its block (or warp) sees it: position p is element first + p of segment s; begin .. end exist.
struct Tile {
  int64_t s, first;
  int begin, end;
};

// The tables on the device. Operand: what an op reads and writes of one segment, and its arithmetic.
template <class Operand>
struct Tables {
  const Segment* segments;       // [S]
  const Operand* operands;       // [S]
  const int32_t* chunk_segment;  // [chunks]
  const Goal* goals;             // [S] in a selection
  int64_t chunk_length;

  __device__ Chunk slots(int64_t c) const {
    const int64_t s = chunk_segment[c];
    const Segment& segment = segments[s];
    const int64_t begin = (c - segment.first_chunk) * chunk_length;
    return {s, begin, begin + chunk_length < segment.slots ? begin + chunk_length : segment.slots};
  }
  __device__ int tiles() const { return static_cast<int>(chunk_length) / kTile; }  // of a chunk
  // Tile b of all; chunks are whole, so that those after a segment's end are empty.
  __device__ Tile tile(unsigned b) const {
    const int64_t s = chunk_segment[b / static_cast<unsigned>(tiles())];
    const Segment& segment = segments[s];
    const int64_t first = (b - segment.first_chunk * tiles()) * kTile - segment.shift;
    const int64_t left = segment.size - first;
    return {s, first, first < 0 ? segment.shift : 0,
            left <= 0      ? 0
            : left < kTile ? static_cast<int>(left)
                           : kTile};
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
  const size_t chunks = parcel.add(plan.chunk_segment), goals = parcel.add(plan.goals);
  const auto* base =
      static_cast<const unsigned char*>(launcher.upload(parcel.bytes().data(), parcel.bytes().size()));
  return {reinterpret_cast<const Segment*>(base + segments), reinterpret_cast<const Operand*>(base + operand),
          reinterpret_cast<const int32_t*>(base + chunks), reinterpret_cast<const Goal*>(base + goals),
          plan.chunk_length};
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
