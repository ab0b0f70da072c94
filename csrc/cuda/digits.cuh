// SPDX-License-Identifier: Apache-2.0
// A magnitude's 31 bits as three digits, highest first, and the histogram of one digit: what every k-th
// largest here is found by. Zeros are not counted: they are never selected.
#pragma once

#include "cuda/device.cuh"

namespace dgs::cuda {

constexpr int kPasses = 3;
constexpr int kMostBins = 2048;
__host__ __device__ constexpr int digit_shift(int pass) { return pass == 0 ? 20 : pass == 1 ? 10 : 0; }
__host__ __device__ constexpr int digit_bins(int pass) { return pass == 0 ? 2048 : 1024; }

// Adds one magnitude to the histogram of digit `pass`, if its higher digits are those of `known` and it is
// not zero.
__device__ __forceinline__ void count_digit(unsigned* bins, uint32_t magnitude, uint32_t known, int pass) {
  const int shift = digit_shift(pass);
  const bool matches = pass == 0 || (magnitude ^ known) >> digit_shift(pass - 1) == 0;
  if (magnitude != 0 && matches)
    atomicAdd(&bins[(magnitude >> shift) & static_cast<uint32_t>(digit_bins(pass) - 1)], 1u);
}

struct Digit {
  int bin;        // the bin in which the wanted entry lies; -1 when nothing is wanted
  int64_t ties;   // its rank within the bin, from 1
  int64_t total;  // the entries in all bins
};

// Which bin holds the want-th largest entry, counted from the highest bin? Thread t owns `bins / kThreads`
// adjacent bins, thread 0 the highest. `want` is cut to the total. Clears the histogram; ends with a barrier.
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

}  // namespace dgs::cuda
