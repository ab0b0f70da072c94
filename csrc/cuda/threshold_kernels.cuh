// SPDX-License-Identifier: Apache-2.0
// The magnitude of each segment's k-th largest entry, by a radix select: 31 bits in three digits, highest
// first. Each pass counts one digit of the entries that match the digits already known (many blocks per
// segment, a histogram each in shared memory, added up in global memory), then one block per segment picks
// the digit. Zeros are not counted: they are never selected.
#pragma once

#include "cuda/plan.h"

namespace dgs::cuda {

constexpr int kPasses = 3;
constexpr int kMostBins = 2048;
__host__ __device__ constexpr int digit_shift(int pass) { return pass == 0 ? 20 : pass == 1 ? 10 : 0; }
__host__ __device__ constexpr int digit_bins(int pass) { return pass == 0 ? 2048 : 1024; }

// Where a segment is cut. After the last pass: everything above `threshold`, and the first `ties` entries
// equal to it.
struct Cut {
  uint32_t threshold;  // the digits known so far, zeros below
  int32_t settled;     // the threshold is final, later passes have nothing to do
  int32_t bad;         // something beside the selected operand is not finite (DGC's velocity)
  int64_t ties;        // how many of the entries that match the known digits are to be selected
};

struct Digit {
  int bin;        // the bin in which the wanted entry lies
  int64_t ties;   // its rank within the bin, from 1
  int64_t total;  // the entries in all bins
};

// Which bin holds the want-th largest entry, counted from the highest bin? Thread t owns `bins / kThreads`
// adjacent bins, thread 0 the highest. `want` is cut to the total; bin is -1 when nothing is wanted. Clears
// the histogram.
template <class Bin>
__device__ Digit find_digit(Bin* histogram, int bins, int64_t want) {
  DGS_SHARED(int64_t, found, 2);
  const int owned = bins / kThreads, highest = bins - 1 - static_cast<int>(threadIdx.x) * owned;
  Count mine = 0;
  for (int b = highest; b > highest - owned; --b) mine += histogram[b];
  const Scanned<Count> sum = block_scan(mine);
  const Count wanted = static_cast<Count>(want) < sum.total ? static_cast<Count>(want) : sum.total;
  if (threadIdx.x == 0 && wanted == 0) {
    found[0] = -1;
    found[1] = 0;
  }
  if (sum.before < wanted && wanted <= sum.before + mine) {
    Count before = sum.before;
    int b = highest;
    for (; before + histogram[b] < wanted; --b) before += histogram[b];
    found[0] = b;
    found[1] = static_cast<int64_t>(wanted - before);
  }
  for (int b = highest; b > highest - owned; --b) histogram[b] = 0;
  __syncthreads();
  const Digit digit{static_cast<int>(found[0]), found[1], static_cast<int64_t>(sum.total)};
  __syncthreads();
  return digit;
}

// Adds one magnitude to the histogram of digit `pass`, if its higher digits are those of `known` and it is
// not zero.
__device__ __forceinline__ void count_digit(unsigned* bins, uint32_t magnitude, uint32_t known, int pass) {
  const int shift = digit_shift(pass);
  const bool matches = pass == 0 || (magnitude ^ known) >> digit_shift(pass - 1) == 0;
  if (magnitude != 0 && matches)
    atomicAdd(&bins[(magnitude >> shift) & static_cast<uint32_t>(digit_bins(pass) - 1)], 1u);
}

// One block per chunk. The first pass produces the values (an op's own arithmetic, written where the op
// writes); the later ones read them again.
template <int kPass, class Operand>
__global__ void __launch_bounds__(kThreads)
    count_digits(Tables<Operand> tables, Cut* cuts /* [S] */, Count* histograms /* [S, kMostBins] */) {
  DGS_SHARED(unsigned, bins, digit_bins(kPass));
  const Chunk chunk = tables.chunk(blockIdx.x, Over::kElements);
  if (kPass > 0 && cuts[chunk.s].settled) return;
  const uint32_t known = cuts[chunk.s].threshold;
  for (int b = static_cast<int>(threadIdx.x); b < digit_bins(kPass); b += kThreads) bins[b] = 0;
  __syncthreads();
  const Operand operand = tables.operands[chunk.s];
  bool bad = false;
  for (int64_t i = chunk.begin + threadIdx.x; i < chunk.end; i += kThreads) {
    const float x = kPass == 0 ? operand.produce(i, bad) : operand.value(i);
    count_digit(bins, magnitude(x), known, kPass);
  }
  if (bad) atomicOr(&cuts[chunk.s].bad, 1);
  __syncthreads();
  Count* histogram = histograms + chunk.s * kMostBins;
  for (int b = static_cast<int>(threadIdx.x); b < digit_bins(kPass); b += kThreads)
    if (bins[b] != 0) atomicAdd(&histogram[b], static_cast<Count>(bins[b]));
}

// One block per segment.
template <int kPass>
__global__ void __launch_bounds__(kThreads)
    pick_digit(const Segment* segments, Cut* cuts /* [S] */, Count* histograms /* [S, kMostBins] */) {
  const int64_t s = blockIdx.x;
  const Cut cut = cuts[s];
  if (kPass > 0 && cut.settled) return;
  const int64_t want = kPass == 0 ? segments[s].count : cut.ties;
  const Digit digit = find_digit(histograms + s * kMostBins, digit_bins(kPass), want);
  if (threadIdx.x != 0) return;
  if (kPass == 0 && digit.total <= want)
    cuts[s] = {0, 1, cut.bad, 0};  // all nonzeros
  else if (digit.bin < 0)
    cuts[s] = {0x7fffffffu, 1, cut.bad, 0};  // nothing
  else
    cuts[s] = {cut.threshold | static_cast<uint32_t>(digit.bin) << digit_shift(kPass), 0, cut.bad,
               digit.ties};
}

// The sample that the twin takes: every (n / kSample)-th entry, at least one.
constexpr int64_t kSample = 4096;

// One block per segment: the cut that takes every entry of at least the magnitude that about `count` entries
// reach, as the sample has it. The sample is read once per digit.
template <class Operand>
__global__ void __launch_bounds__(kThreads) sample_threshold(Tables<Operand> tables, Cut* cuts /* [S] */) {
  DGS_SHARED(unsigned, bins, kMostBins);
  const int64_t s = blockIdx.x;
  const Segment segment = tables.segments[s];
  const Operand operand = tables.operands[s];
  const int64_t n = segment.size, stride = n / kSample > 1 ? n / kSample : 1;
  const int64_t sample = (n + stride - 1) / stride;
  uint32_t threshold = 0;
  if (segment.count < n) {
    int64_t want = (segment.count * sample + n / 2) / n;
    want = want > 1 ? want : 1;
    for (int b = static_cast<int>(threadIdx.x); b < kMostBins; b += kThreads) bins[b] = 0;
    __syncthreads();
    for (int pass = 0; pass < kPasses; ++pass) {
      for (int64_t i = threadIdx.x; i < sample; i += kThreads)
        count_digit(bins, magnitude(operand.value(i * stride)), threshold, pass);
      __syncthreads();
      const Digit digit = find_digit(bins, digit_bins(pass), want);
      if (pass == 0 && digit.total < want) break;  // the wanted entry of the sample is a zero: all nonzeros
      threshold |= static_cast<uint32_t>(digit.bin) << digit_shift(pass);
      want = digit.ties;
    }
  }
  // Entries above `threshold - 1` are those of at least `threshold`; zeros never.
  if (threadIdx.x == 0) cuts[s] = Cut{threshold > 0 ? threshold - 1 : 0, 1, cuts[s].bad, 0};
}

}  // namespace dgs::cuda
