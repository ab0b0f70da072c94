// SPDX-License-Identifier: Apache-2.0
// What is exchanged: entries of a small model, and the frames that they are packed in (python/dgs/frames.py).
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "../check.h"
#include "cpu/apply.h"
#include "wire/frame.h"

namespace dgs::session {

// Whoever works at a desk is one thread.
struct Alone {
  template <class Body>
  void operator()(std::size_t n, const Body& body) const {
    for (std::size_t i = 0; i < n; ++i) body(static_cast<int64_t>(i));
  }
};

// Segments of which one is sampled and one selected whole.
struct Layout {
  std::vector<int64_t> offsets{0, 300, 40'300, 40'300, 41'000}, counts{300, 400, 0, 30}, starts{0};

  Layout() {
    for (const int64_t k : counts) starts.push_back(starts.back() + k);
  }
  int64_t numel() const { return offsets.back(); }
  Segments segments() const { return {offsets.data(), static_cast<int64_t>(counts.size())}; }
  template <class T>
  std::vector<T*> parts(std::vector<float>& flat) const {
    std::vector<T*> pointers;
    for (std::size_t s = 0; s < counts.size(); ++s) pointers.push_back(flat.data() + offsets[s]);
    return pointers;
  }
};

inline const Layout layout;

// Entries in ascending order: what came over the wire, or is to go.
struct Sparse {
  std::vector<int64_t> indices, starts, nnz;
  std::vector<float> values;

  void place() {  // in the segments' slots
    starts.clear();
    nnz.clear();
    for (const int64_t offset : layout.offsets) {
      starts.push_back(std::lower_bound(indices.begin(), indices.end(), offset) - indices.begin());
    }
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) nnz.push_back(starts[s + 1] - starts[s]);
  }
  Entries entries() const { return {indices.data(), values.data(), starts.data(), nnz.data()}; }
};

inline void add(std::vector<float>& x, const Entries& entries, bool subtract) {
  const auto ranges = cpu::entry_ranges(entries, layout.segments().count);
  cpu::sparse_add(layout.parts<float>(x).data(), layout.segments(), entries, ranges, subtract, Alone{});
}

// A frame's memory, and what packing it takes.
struct Packer {
  wire::Scratch scratch;
  std::vector<std::uint8_t> frame;

  void pack(const wire::Entries& entries) {
    wire::Header header;
    header.kind = 1;
    header.codec = wire::Codec::kFloat32;
    const auto numel = static_cast<std::uint64_t>(layout.numel());
    frame.resize(wire::frame_capacity(entries.indices.size(), header.codec, numel, layout.counts.size(), 0));
    std::size_t length = 0;
    wire::Alone alone;
    CHECK(wire::encode_sparse(header, {}, entries, numel, &scratch, frame, &length, &alone).ok());
    frame.resize(length);
  }
};

// What a frame holds, until the next.
struct Unpacker {
  Sparse came;

  void unpack(const std::vector<std::uint8_t>& frame) {
    came.indices.resize(static_cast<std::size_t>(layout.numel()));
    came.values.resize(came.indices.size());
    wire::Decoded decoded;
    wire::Alone alone;
    const auto numel = static_cast<std::uint64_t>(layout.numel());
    CHECK(wire::decode(frame, numel, std::nullopt, came.indices, came.values, &decoded, &alone).ok());
    CHECK(decoded.form == wire::BodyForm::kSparse);
    came.indices.resize(decoded.header.count);
    came.values.resize(decoded.header.count);
    came.place();
  }
};

}  // namespace dgs::session
