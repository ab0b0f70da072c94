// SPDX-License-Identifier: Apache-2.0
#include "wire/plan.h"

#include <algorithm>

#include "wire/directory.h"
#include "wire/index_codec.h"

namespace dgs::wire {
namespace {

using Indices = std::span<const std::uint64_t>;

std::uint64_t next_index(std::span<const Block> blocks) {
  return blocks.empty() ? 0 : blocks.back().last() + 1;
}

std::uint64_t cost(const Block& block, std::uint64_t next) {
  return entry_bytes(block, next) + block.stream_bytes();
}

bool touching(const Block& a, const Block& b) {
  return a.form == BlockForm::kRun && b.form == BlockForm::kRun && a.last() + 1 == b.first;
}

// Joins the last blocks where one is smaller than they are: whole small tensors side by side become one run,
// and single entries of many small tensors share one rice block. Two runs of one entry are smaller than a
// rice block of two, so it is not enough to look at pairs.
void join_last(Indices indices, std::vector<Block>* blocks) {
  const std::span<const Block> all(*blocks);
  std::uint64_t count = 0, apart = 0, least = 0;
  std::size_t keep = all.size();
  Block best;
  for (std::size_t taken = 1; taken <= std::min(all.size(), kMostJoined); ++taken) {
    const std::size_t left = all.size() - taken;
    const std::uint64_t next = next_index(all.first(left));
    count += all[left].count;
    apart += cost(all[left], next);
    if (taken == 1) continue;
    if (count > kMergeCount && !(taken == 2 && touching(all[left], all[left + 1]))) break;
    const Block joined = plan_block(indices.last(count));
    const std::uint64_t together = cost(joined, next);
    if (together <= apart && apart - together >= least) {
      least = apart - together;
      keep = left;
      best = joined;
    }
  }
  if (keep == all.size()) return;
  blocks->resize(keep);
  blocks->push_back(best);
}

void append(Indices indices, std::uint64_t begin, std::uint64_t end, std::vector<Block>* blocks) {
  blocks->push_back(plan_block(indices.subspan(begin, end - begin)));
  join_last(indices.first(end), blocks);
}

void append_chunks(Indices indices, std::uint64_t begin, std::uint64_t end, std::vector<Block>* blocks) {
  for (; begin < end; begin += kBlockCount)
    append(indices, begin, std::min(end, begin + kBlockCount), blocks);
}

}  // namespace

void plan_segment(Indices indices, std::uint64_t begin, std::uint64_t end, std::vector<Block>* blocks) {
  std::uint64_t run = begin;  // where the current run of consecutive indices began
  for (std::uint64_t i = begin; i < end; ++i) {
    if (i + 1 < end && indices[i + 1] == indices[i] + 1) continue;
    if (i + 1 - run >= kLongRun) {
      append_chunks(indices, begin, run, blocks);
      append(indices, run, i + 1, blocks);
      begin = i + 1;
    }
    run = i + 1;
  }
  append_chunks(indices, begin, end, blocks);
}

}  // namespace dgs::wire
