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

Block one_run(const Block& a, const Block& b) {
  Block run;
  run.count = a.count + b.count;
  run.first = a.first;
  run.span = run.gaps();
  return run;
}

// Joins the last blocks where one is smaller than they are: whole small tensors side by side become one run,
// and single entries of many small tensors share one rice block. Two runs of one entry are smaller than a
// rice block of two, so it is not enough to look at pairs.
void join_last(Indices last, std::vector<Block>* blocks) {
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
    const bool runs = taken == 2 && touching(all[left], all[left + 1]);
    if (count > kMergeCount && !runs) break;
    const Block joined = runs ? one_run(all[left], all[left + 1]) : plan_block(last.last(count));
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

// One past the last of the consecutive indices that `at` belongs to.
std::size_t run_end(Indices indices, std::size_t at) {
  while (at + 1 < indices.size() && indices[at + 1] == indices[at] + 1) ++at;
  return at + 1;
}

std::size_t run_begin(Indices indices, std::size_t at, std::size_t least) {
  while (at > least && indices[at - 1] + 1 == indices[at]) --at;
  return at;
}

Block* plan_chunks(Indices indices, Block* blocks) {
  for (; !indices.empty(); indices = indices.subspan(std::min(kBlockCount, indices.size()))) {
    *blocks++ = plan_block(indices.first(std::min(kBlockCount, indices.size())));
  }
  return blocks;
}

}  // namespace

// A long run holds a multiple of half its length and the index half a length further: looking at those alone
// finds every one.
std::size_t plan(Indices indices, Block* blocks) {
  constexpr std::size_t kHalf = kLongRun / 2;
  Block* to = blocks;
  std::size_t begin = 0;
  for (std::size_t i = 0; i + kHalf < indices.size(); i += kHalf) {
    if (indices[i + kHalf] - indices[i] != kHalf || i < begin) continue;
    const std::size_t first = run_begin(indices, i, begin), end = run_end(indices, i + kHalf);
    if (end - first < kLongRun) continue;
    to = plan_chunks(indices.subspan(begin, first - begin), to);
    *to++ = plan_block(indices.subspan(first, end - first));
    begin = end;
  }
  return static_cast<std::size_t>(plan_chunks(indices.subspan(begin), to) - blocks);
}

void append(Indices last, const Block& block, std::vector<Block>* blocks) {
  blocks->push_back(block);
  join_last(last, blocks);
}

}  // namespace dgs::wire
