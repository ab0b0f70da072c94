// SPDX-License-Identifier: Apache-2.0
// The first launch of a selection: every segment's state is initialised, and the threshold of its candidates
// taken from a sample of this step's values, computed from the operands and stored nowhere.
#pragma once

#include "cuda/candidates.h"

namespace dgs::cuda {

constexpr int64_t kStored =
    kRun * kMostRuns;  // of a sample in shared memory: all of ours, half of the twin's longest

// The element at position i of an exact selection's sample: run i / kRun begins somewhere in its own one of
// equal parts of [0, n), scattered so that the sample does not beat with the rows of a tensor.
__device__ __forceinline__ int64_t scattered(int64_t i, int64_t runs, int64_t n) {
  const int64_t run = i / kRun, part = n / runs;
  const uint64_t scatter = (static_cast<uint64_t>(run) + 1) * 0x9e3779b97f4a7c15u >> 33;
  return run * part + static_cast<int64_t>(scatter % static_cast<uint64_t>(part - kRun + 1)) + i % kRun;
}

// A sample of one segment: position i of it is read once if it is stored, else once for each digit.
template <class Operand>
struct Sample {
  const Operand& operand;
  int64_t n, size, stride;  // of the segment, of the sample; 0: runs
  uint32_t* stored;         // [kStored]

  __device__ uint32_t read(int64_t i) const {
    return magnitude(operand.peek(stride > 0 ? i * stride : scattered(i, size / kRun, n)));
  }
  __device__ uint32_t operator[](int64_t i) const { return i < kStored ? stored[i] : read(i); }
  __device__ void store() const {
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < size && i < kStored; i += kThreads) stored[i] = read(i);
  }
};

// The magnitude of rank `goal.rank` in the sample, digit by digit; 1 if that is a zero: all nonzeros.
template <class Operand>
__device__ uint32_t estimated_threshold(const Operand& operand, const Goal& goal, int64_t n) {
  DGS_SHARED(uint32_t, stored, kStored);
  DGS_SHARED(unsigned, bins, kMostBins);
  const Sample<Operand> sample{operand, n, goal.sample, goal.stride, stored};
  sample.store();
  for (int b = static_cast<int>(threadIdx.x); b < kMostBins; b += kThreads) bins[b] = 0;
  __syncthreads();
  uint32_t threshold = 0;
  int64_t want = goal.rank;
  for (int pass = 0; pass < kPasses; ++pass) {
    for (int64_t i = threadIdx.x; i < sample.size; i += kThreads)
      count_digit(bins, sample[i], threshold, pass);
    __syncthreads();
    const Digit digit = find_digit(bins, digit_bins(pass), want);
    if (pass == 0 && digit.total < want) return 1;
    threshold |= static_cast<uint32_t>(digit.bin) << digit_shift(pass);
    want = digit.ties;
  }
  return threshold;
}

// One block per segment. With `sampled` the threshold is the cut: entries above `threshold - 1` are those of
// at least `threshold`.
template <class Operand>
__global__ void __launch_bounds__(kThreads, 2)
    estimate(Tables<Operand> tables, Workspace work, bool sampled) {
  const int64_t s = blockIdx.x;
  const Goal goal = tables.goals[s];
  for (int b = static_cast<int>(threadIdx.x); work.histograms != nullptr && b < kMostBins; b += kThreads)
    work.histograms[s * kMostBins + b] = 0;
  uint32_t threshold = goal.threshold;
  if (goal.sample > 0) threshold = estimated_threshold(tables.operands[s], goal, tables.segments[s].size);
  if (threadIdx.x == 0) work.states[s] = {threshold, sampled ? threshold - 1 : 0, sampled ? 1 : 0, 0, 0, 0};
}

}  // namespace dgs::cuda
