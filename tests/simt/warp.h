// SPDX-License-Identifier: Apache-2.0
// What the lanes of a warp give each other: who takes part in a collective, and what each lane gets of it.
#pragma once

#include "thread.h"

namespace simt {

// The threads of a warp that a mask names.
struct Lanes {
  Lanes(Block& block, unsigned warp, uint32_t mask) {
    for (unsigned lane = 0; lane < kWarp && warp * kWarp + lane < block.threads.size(); ++lane)
      if ((mask >> lane & 1u) != 0) named[count++] = block.threads[warp * kWarp + lane];
  }
  Thread** begin() { return named; }
  Thread** end() { return named + count; }
  Thread* named[kWarp];
  unsigned count = 0;
};

// Those of a mask's lanes that have not exited, at one collective.
class Meeting {
 public:
  // Has every one of them come, with the mask and the collective of `like`?
  Meeting(Lanes& lanes, const Thread& like) {
    for (const Thread* t : lanes) {
      if (t->state == State::kDone) continue;
      if (t->state != State::kAtWarp || t->mask != like.mask || t->collective != like.collective) return;
      const unsigned lane = t->linear % kWarp;
      values_[lane] = t->value;
      live_ |= 1u << lane;
      if (t->value != 0) set_ |= 1u << lane;
    }
    complete_ = true;
  }
  bool complete() const { return complete_; }
  // A shuffle may read only lanes that take part.
  bool has_source(const Thread& t) const {
    return t.collective != Collective::kShuffle || (live_ >> t.source & 1u) != 0;
  }
  uint64_t result(const Thread& t) const {
    switch (t.collective) {
      case Collective::kShuffle:
        return values_[t.source];
      case Collective::kBallot:
        return set_;
      case Collective::kAny:
        return set_ != 0;
      case Collective::kAll:
        return set_ == live_;
      case Collective::kMatch:
        return equal_to(t.value);
      case Collective::kSync:
        break;
    }
    return 0;
  }

 private:
  uint32_t equal_to(uint64_t value) const {
    uint32_t equal = 0;
    for (unsigned lane = 0; lane < kWarp; ++lane)
      if ((live_ >> lane & 1u) != 0 && values_[lane] == value) equal |= 1u << lane;
    return equal;
  }

  bool complete_ = false;
  uint32_t live_ = 0, set_ = 0;
  uint64_t values_[kWarp] = {};
};

}  // namespace simt
