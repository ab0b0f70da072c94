// SPDX-License-Identifier: Apache-2.0
// Selection on the device: exactly the k entries of each segment largest in magnitude, ties lowest index
// first.
//
// A radix select finds, per segment, the magnitude of its k-th largest entry: 31 bits in three digits,
// highest first. Each pass counts one digit of the entries that match the digits already known (many blocks
// per segment, a histogram each in shared memory, added up in global memory), then one block per segment
// picks the digit. What is above the threshold, and the first ties, are then written in order of index:
// counts per chunk, a scan per segment, a write. Nothing comes back to the host in between.
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

// Per chunk; after the scan: the same over all chunks of the segment that lie below.
struct ChunkCount {
  Count above, equal;
};

// --- digits
// ---------------------------------------------------------------------------------------------------------

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
  if (threadIdx.x == 0 && wanted == 0) found[0] = -1, found[1] = 0;
  if (sum.before < wanted && wanted <= sum.before + mine) {
    Count before = sum.before;
    int b = highest;
    for (; before + histogram[b] < wanted; --b) before += histogram[b];
    found[0] = b, found[1] = static_cast<int64_t>(wanted - before);
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

// --- the threshold
// --------------------------------------------------------------------------------------------------

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
  Cut next = cut;
  if (kPass == 0 && digit.total <= want) {  // all nonzeros
    next.threshold = 0, next.ties = 0, next.settled = 1;
  } else if (digit.bin < 0) {  // nothing
    next.threshold = 0x7fffffffu, next.ties = 0, next.settled = 1;
  } else {
    next.threshold = cut.threshold | static_cast<uint32_t>(digit.bin) << digit_shift(kPass);
    next.ties = digit.ties;
  }
  cuts[s] = next;
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
  const int64_t n = segment.size, stride = n / kSample > 1 ? n / kSample : 1,
                sample = (n + stride - 1) / stride;
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
  if (threadIdx.x == 0) cuts[s] = Cut{threshold > 0 ? threshold - 1 : 0, 1, 0, 0};
}

// --- the ordered compaction
// -----------------------------------------------------------------------------------------

// One block per chunk: how many entries lie above the threshold, how many on it. Both fit 16 bits.
template <class Operand>
__global__ void __launch_bounds__(kThreads)
    count_selected(Tables<Operand> tables, Cut* cuts /* [S] */, ChunkCount* counts /* [chunks] */) {
  DGS_SHARED(unsigned, block_sum, 1);
  if (threadIdx.x == 0) block_sum[0] = 0;
  __syncthreads();
  const Chunk chunk = tables.chunk(blockIdx.x, Over::kElements);
  const Operand operand = tables.operands[chunk.s];
  const uint32_t threshold = cuts[chunk.s].threshold;
  unsigned mine = 0;
  bool bad = false;
  for (int64_t i = chunk.begin + threadIdx.x; i < chunk.end; i += kThreads) {
    const uint32_t m = magnitude(operand.value(i));
    mine += m > threshold ? 1u : m == threshold ? 0x10000u : 0u;
    bad |= m >= 0x7f800000u;
  }
  for (int distance = 16; distance > 0; distance >>= 1) mine += __shfl_down_sync(kFullWarp, mine, distance);
  if ((threadIdx.x & 31u) == 0) atomicAdd(&block_sum[0], mine);
  if (bad) atomicOr(&cuts[chunk.s].bad, 1);
  __syncthreads();
  if (threadIdx.x == 0) counts[blockIdx.x] = {block_sum[0] & 0xffffu, block_sum[0] >> 16};
}

// The slot of an entry with `above` and `equal` such entries below it in its segment.
__device__ __forceinline__ int64_t slot_of(Count above, Count equal, int64_t ties) {
  const int64_t e = static_cast<int64_t>(equal);
  return static_cast<int64_t>(above) + (e < ties ? e : ties);
}

// One block per segment: the counts of its chunks become exclusive prefix sums, their total becomes nnz.
static __global__ void __launch_bounds__(kThreads)
    scan_chunks(const Segment* segments, const Cut* cuts /* [S] */, int64_t segments_size, int64_t chunks,
                ChunkCount* counts /* [chunks] */, int64_t* nnz /* [S] */) {
  const int64_t s = blockIdx.x, first = segments[s].first_chunk;
  const int64_t end = s + 1 < segments_size ? segments[s + 1].first_chunk : chunks;
  ChunkCount below{0, 0};
  for (int64_t c0 = first; c0 < end; c0 += kThreads) {
    const int64_t c = c0 + threadIdx.x;
    const ChunkCount mine = c < end ? counts[c] : ChunkCount{0, 0};
    const Scanned<Count> above = block_scan(mine.above), equal = block_scan(mine.equal);
    if (c < end) counts[c] = {below.above + above.before, below.equal + equal.before};
    below.above += above.total, below.equal += equal.total;
  }
  if (threadIdx.x != 0) return;
  const int64_t selected = slot_of(below.above, below.equal, cuts[s].ties);
  nnz[s] = cuts[s].bad ? -1 : selected < segments[s].slots ? selected : segments[s].slots;
}

constexpr int kItems = 4;  // entries per thread and tile; a warp owns 32 * kItems adjacent ones

// One block per chunk: writes what is selected, in order of index. A tile is kThreads * kItems entries; item
// j of a warp is 32 adjacent entries, so that reads are coalesced and a ballot gives each entry its rank.
template <class Operand>
__global__ void __launch_bounds__(kThreads)
    write_selected(Tables<Operand> tables, const Cut* cuts /* [S] */, const ChunkCount* below /* [chunks] */,
                   Slots out) {
  DGS_SHARED(unsigned, warp_above, kWarps);
  DGS_SHARED(unsigned, warp_equal, kWarps);
  const Chunk chunk = tables.chunk(blockIdx.x, Over::kElements);
  const Segment segment = tables.segments[chunk.s];
  const Cut cut = cuts[chunk.s];
  if (out.nnz[chunk.s] <= 0) return;
  const Operand operand = tables.operands[chunk.s];
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  Count above = below[blockIdx.x].above, equal = below[blockIdx.x].equal;
  for (int64_t tile = chunk.begin; tile < chunk.end; tile += kThreads * kItems) {
    const int64_t first = tile + warp * 32 * kItems + lane;
    float x[kItems];
    unsigned is_above[kItems], is_equal[kItems], n_above = 0, n_equal = 0;
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const int64_t i = first + 32 * j;
      const bool inside = i < chunk.end;
      x[j] = inside ? operand.value(i) : 0.0f;
      is_above[j] = __ballot_sync(kFullWarp, inside && magnitude(x[j]) > cut.threshold);
      is_equal[j] = __ballot_sync(kFullWarp, inside && magnitude(x[j]) == cut.threshold);
      n_above += static_cast<unsigned>(__popc(is_above[j]));
      n_equal += static_cast<unsigned>(__popc(is_equal[j]));
    }
    if (lane == 0) warp_above[warp] = n_above, warp_equal[warp] = n_equal;
    __syncthreads();
    Count a = above, e = equal;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) a += warp_above[w], e += warp_equal[w];
      above += warp_above[w], equal += warp_equal[w];
    }
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const Count my_equal = e + set_below(is_equal[j]);
      const bool tie = (is_equal[j] >> lane & 1u) != 0 && static_cast<int64_t>(my_equal) < cut.ties;
      if ((is_above[j] >> lane & 1u) != 0 || tie) {
        const int64_t slot = slot_of(a + set_below(is_above[j]), my_equal, cut.ties);
        if (slot < segment.slots) {
          out.indices[segment.start + slot] = segment.offset + first + 32 * j;
          out.values[segment.start + slot] = x[j];
        }
      }
      a += static_cast<unsigned>(__popc(is_above[j])), e += static_cast<unsigned>(__popc(is_equal[j]));
    }
    __syncthreads();
  }
}

}  // namespace dgs::cuda
