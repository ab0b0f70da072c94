// SPDX-License-Identifier: Apache-2.0
#include "wire/plan.h"

#include <algorithm>

#include "wire/directory.h"
#include "wire/index_codec.h"

namespace dgs::wire {
namespace {

using Indices = std::span<const std::uint64_t>;

std::uint64_t next_index(const std::vector<Block>& blocks) {
  return blocks.empty() ? 0 : blocks.back().last() + 1;
}

std::uint64_t cost(const Block& block, std::uint64_t next) {
  return entry_bytes(block, next) + block.stream_bytes();
}

// Joins the new block to the last one where that is smaller: whole small tensors side by side become one run,
// and single entries of many small tensors share one rice block.
void append(Indices indices, std::uint64_t begin, std::uint64_t end, std::vector<Block>* blocks) {
  const Block block = plan_block(indices.subspan(begin, end - begin));
  if (!blocks->empty()) {
    const Block last = blocks->back();
    const bool touching =
        last.form == BlockForm::kRun && block.form == BlockForm::kRun && last.last() + 1 == block.first;
    if (touching || last.count + block.count <= kMergeCount) {
      const std::uint64_t from = begin - last.count;
      const std::uint64_t next = from == 0 ? 0 : indices[from - 1] + 1;
      const Block joined = plan_block(indices.subspan(from, end - from));
      if (cost(joined, next) <= cost(last, next) + cost(block, next_index(*blocks))) {
        blocks->back() = joined;
        return;
      }
    }
  }
  blocks->push_back(block);
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
