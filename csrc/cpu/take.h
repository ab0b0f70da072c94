// SPDX-License-Identifier: Apache-2.0
// What was selected is quantised, and taken out of what it was selected from. The sweep does so itself with
// most of what is sent as float32 (Reach); here is the rest, and what the sweep should not have taken is put
// back. Free of torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/block_codecs.h"
#include "common/formulas.h"
#include "common/segments.h"
#include "cpu/choose.h"
#include "cpu/chunks.h"
#include "cpu/loops.h"

namespace dgs::cpu {

constexpr uint32_t kNormal = 0x00800000u;  // the first magnitude that goes on the wire as float32 as it is

// The number of a Codec or a BlockCodec; 0: what is selected stays where it is.
using CodecNumber = int64_t;
constexpr CodecNumber kNotSent = 0;

// Element `at` of a segment, of which q has been sent.
inline void take_out(const Operand& o, int64_t at, float q) {
  if (o.kind == Kind::kDifference) {
    o.y_out[at] = added(o.y_out[at], q);
  } else if (o.kind == Kind::kVelocity) {
    o.x_out[at] = kept(o.x_out[at], o.keep, q);
  } else {
    o.y_out[at] = sub_rn(o.y_out[at], q);
    if (o.masked && q != 0.0f) o.x_out[at] = 0.0f;
  }
}
inline void prefetch_written(const Operand& o, int64_t at) {
  if (o.kind != Kind::kDifference) __builtin_prefetch(o.x_out + at, 1);
  if (o.kind != Kind::kVelocity) __builtin_prefetch(o.y_out + at, 1);
}

class Taker {
 public:
  Taker(const Loops& loops, const std::vector<Operand>& operands, const Segments& segments,
        const Slots& slots, CodecNumber codec)
      : loops_(loops), operands_(operands), segments_(segments), slots_(slots), codec_(codec) {}

  bool at_work() const { return codec_ != kNotSent; }

  // From which magnitude on the sweep of segment s is to take: from `likely` on, where the sweep knows how.
  uint32_t in_sweep(int64_t s, uint32_t likely) const {
    const bool able = operands_[s].kind == Kind::kVelocity || operands_[s].kind == Kind::kDgc;
    const bool as_they_are = codec_ == static_cast<CodecNumber>(Codec::kFloat32);
    return able && as_they_are && likely < kNothing ? std::max(likely, kNormal) : kNothing;
  }

  // Elements begin .. end of segment s as they were before anything was taken.
  void put_back(int64_t s, int64_t begin, int64_t end, bool streamed) const {
    float values[kSpareLanes];
    uint32_t at[kSpareLanes];
    loops_.sweep(operands_[s], begin, end, {}, streamed, {values, at});
  }

  // The slots begin .. end of segment s, from the first of a block on; nothing was taken in the sweep.
  void take_slots(int64_t s, int64_t begin, int64_t end) const {
    const Operand& operand = operands_[s];
    float* values = slots_.values + slots_.starts[s];
    const int64_t* indices = slots_.indices + slots_.starts[s];
    quantize(values + begin, end - begin);
    for (int64_t j = begin; j < end; ++j) {
      prefetch_written(operand, indices[std::min(j + kEarly, end - 1)] - segments_.offsets[s]);
      take_out(operand, indices[j] - segments_.offsets[s], values[j]);
    }
  }

  // Makes what the sweep took, from reach.take on, what was chosen: the first nnz of what `cut` keeps of the
  // runs.
  void settle(int64_t s, const Run* runs, int64_t n, const Reach& reach, const Cut& cut) const {
    int64_t total = 0;
    for (int64_t i = 0; i < n; ++i) total += runs[i].count;
    const int64_t nnz = slots_.nnz[s];
    if (cut.magnitude < kNormal) quantize(slots_.values + slots_.starts[s], nnz);
    int64_t ties = cut.all_ties ? total : cut.ties, room = nnz;
    const uint32_t take = reach.take, low = std::min(cut.magnitude, take);
    const bool no_room = cut.magnitude == reach.low && nnz < total;  // for some that are wanted
    const uint32_t high = no_room ? kNothing : std::max(cut.magnitude, take - 1);
    const auto settle_one = [&](const Run& run, int64_t i) {
      const uint32_t m = magnitude(run.values[i]);
      const int64_t at = run.begin + run.at[i];
      const bool chosen = m > cut.magnitude ? room-- > 0 : m == cut.magnitude && ties-- > 0 && room-- > 0;
      if (chosen && m < take) take_out(operands_[s], at, flush(run.values[i]));
      if (!chosen && m >= take) put_back(s, at, run.values[i]);
    };
    for (int64_t i = 0; i < n; ++i) for_each_within(s, runs[i], low, high, settle_one);
  }

 private:
  void put_back(int64_t s, int64_t at, float value) const {
    if (operands_[s].kind == Kind::kVelocity) {
      operands_[s].x_out[at] = value;
    } else {
      put_back(s, at, at + 1, false);  // what it wrote beside the value is not known any more
    }
  }

  void quantize(float* values, int64_t n) const {
    if (codec_ >= kFirstBlockCodec) return loops_.quantize_blocks(values, n, static_cast<BlockCodec>(codec_));
    loops_.quantize(values, n, static_cast<Codec>(codec_));
  }

  // Calls visit(run, i) for the candidates i of magnitude in [low, high], in order.
  template <class Visit>
  void for_each_within(int64_t s, const Run& run, uint32_t low, uint32_t high, const Visit& visit) const {
    uint32_t found[kBlock + kSpareLanes];
    for (int64_t begin = 0; begin < run.count; begin += kBlock) {
      const int64_t n = std::min(kBlock, run.count - begin);
      const int64_t count = loops_.within(run.values + begin, n, low, high, found);
      for (int64_t j = 0; j < count; ++j)
        prefetch_written(operands_[s], run.begin + run.at[begin + found[j]]);
      for (int64_t j = 0; j < count; ++j) visit(run, begin + found[j]);
    }
  }

  const Loops& loops_;
  const std::vector<Operand>& operands_;
  const Segments& segments_;
  const Slots& slots_;
  const CodecNumber codec_;
};

}  // namespace dgs::cpu
