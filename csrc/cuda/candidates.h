// SPDX-License-Identifier: Apache-2.0
// Candidates for a selection: the entries of at least an estimated magnitude, which the one pass over the
// operands keeps. Here: how many are aimed at, where they lie, and when they are enough.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda/digits.cuh"
#include "cuda/plan.h"

namespace dgs::cuda {

constexpr int64_t kSmall = 2 * kTile;  // up to here every nonzero is a candidate
constexpr int64_t kSparse = 4;       // above n / kSparse wanted, none is: they would cost more than they save
constexpr int64_t kRun = 8;          // neighbours sampled together: a sector of a cache line
constexpr int64_t kMostRuns = 512;   // 4096 values of a large segment
constexpr int64_t kSampleShare = 8;  // at most an eighth of a smaller one
constexpr int64_t kSample = 4096;    // the twin's: every (n / kSample)-th entry
constexpr uint32_t kNothing = UINT32_MAX;  // a threshold that nothing reaches

// A segment's state on the device, in the course of an op.
struct State {
  uint32_t threshold;  // of the candidates
  uint32_t cut;        // of the magnitude where the segment is cut: the digits known so far, zeros below
  int32_t
      settled;   // the cut is final: everything above it is taken, and the first `ties` entries equal to it
  int32_t bad;   // a value is not finite
  int64_t ties;  // how many of the entries that match the known digits are to be taken
  Count candidates;  // how many there are, kept or not
};

struct alignas(8) Candidate {
  uint32_t at;  // its position in its tile
  float value;
};

// One tile's candidates, in ascending order: tiles reserve them in any order.
struct Piece {
  Count begin;     // among the segment's
  uint32_t count;  // at most kTile
  uint32_t
      selected;  // entries above the cut in the lower half, equal to it in the upper: once they are counted
};

// Per chunk; after the scan: the same over all chunks of the segment that lie below.
struct ChunkCount {
  Count above, equal;  // entries above the cut, and on it
};

// What the kernels of one op share on the device, not initialised.
struct Workspace {
  State* states;       // [S]
  Count* histograms;   // [S, kMostBins], null where no digit is counted
  Piece* pieces;       // [tiles]
  Candidate* pool;     // [the bounds' sum]
  ChunkCount* counts;  // [chunks]
};

// Are the entries to be selected among the candidates, or must the segment be read again?
__host__ __device__ inline bool among_candidates(const Goal& goal, const State& state) {
  const bool kept = state.candidates <= static_cast<Count>(goal.bound);
  return kept && (state.threshold <= 1 || state.candidates >= static_cast<Count>(goal.needed));
}

// The rank among m sampled values of n whose magnitude about 2k of the n reach, and almost surely at least k:
// the sample holds k * m / n of the k largest, give or take four standard deviations.
inline int64_t rank_for(int64_t k, int64_t m, int64_t n) {
  const double expected = static_cast<double>(k) * static_cast<double>(m) / static_cast<double>(n);
  return static_cast<int64_t>(std::max(2 * expected, expected + 4 * std::sqrt(expected) + 4));
}

// The k largest of n.
inline Goal exact_goal(int64_t n, int64_t k) {
  Goal goal{k, k, 0, 0, 0, 0, 0, kNothing};
  if (k == 0 || (n > kSmall && k > n / kSparse)) return goal;
  goal.bound = n <= kSmall ? n : std::min(n, 8 * k + 1024);
  goal.threshold = 1;
  const int64_t m = kRun * std::min(kMostRuns, n / (kRun * kSampleShare)),
                rank = n <= kSmall ? m : rank_for(k, m, n);
  if (rank >= m) return goal;
  goal.sample = m;
  goal.rank = rank;
  return goal;
}

// What about k of n reach, by the twin's sample.
inline Goal sampled_goal(int64_t n, int64_t k) {
  Goal goal{k, 0, 0, 0, 0, 0, 0, 1};
  goal.bound = n <= kSmall ? n : k > n / kSparse ? 0 : std::min(n, 8 * k + 1024);
  if (k >= n) return goal;
  goal.stride = std::max<int64_t>(1, n / kSample);
  goal.sample = (n + goal.stride - 1) / goal.stride;
  goal.rank = std::max<int64_t>(1, (k * goal.sample + n / 2) / n);
  return goal;
}

// Gives every segment of `plan` its goal; returns how many candidates there is room for.
inline int64_t set_goals(Plan& plan, const int64_t* counts, bool sampled) {
  int64_t pool = 0;
  for (size_t s = 0; s < plan.segments.size(); ++s) {
    const int64_t n = plan.segments[s].size;
    plan.goals.push_back(sampled ? sampled_goal(n, counts[s]) : exact_goal(n, counts[s]));
    plan.goals.back().pool = pool;
    pool += plan.goals.back().bound;
  }
  return pool;
}

}  // namespace dgs::cuda
