// SPDX-License-Identifier: Apache-2.0
// A session in steady state allocates nothing: the second message of a size, and every one after it.
#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "check.h"
#include "wire/frame.h"
#include "wire/thread_pool.h"

namespace {
std::atomic<std::size_t> allocations{0};

void* counted(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes); }
void* operator new[](std::size_t bytes) { return counted(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace dgs::wire;

constexpr std::uint64_t kNumel = 5'000'000;

void exchange(std::vector<std::int64_t>& indices, std::vector<float>& values, Scratch* scratch,
              std::vector<std::uint8_t>& frame, Decoded* decoded, Pool* pool) {
  const std::vector<std::int64_t>::size_type count = indices.size();
  const std::int64_t starts[] = {0, static_cast<std::int64_t>(count)}, nnz[] = {starts[1]};
  Header header;
  header.kind = 1;
  header.codec = Codec::kFloat32;
  std::size_t length = 0;
  const Status sent =
      encode_sparse(header, {}, {indices, values, starts, nnz}, kNumel, scratch, frame, &length, pool);
  const Status received =
      decode(ConstBytes(frame).first(length), kNumel, std::nullopt, indices, values, decoded, pool);
  CHECK(sent.ok() && received.ok());
}

TEST(messages_after_the_first_allocate_nothing) {
  std::vector<std::int64_t> indices;
  std::vector<float> values;
  for (std::uint64_t i = 0; i < kNumel; i += 1 + i % 199) {
    indices.push_back(static_cast<std::int64_t>(i));
    values.push_back(1.0f);
  }
  std::vector<std::uint8_t> frame(frame_capacity(indices.size(), Codec::kFloat32, kNumel, 1, 0));
  Scratch scratch;
  Decoded decoded;
  ThreadPool threads;
  Alone alone;
  Threads some(&threads, 3);
  for (Pool* pool : {static_cast<Pool*>(&alone), static_cast<Pool*>(&some)}) {
    exchange(indices, values, &scratch, frame, &decoded, pool);
    const std::size_t before = allocations;
    for (int i = 0; i < 20; ++i) exchange(indices, values, &scratch, frame, &decoded, pool);
    CHECK_EQ(allocations.load(), before);
  }
}

TEST(the_counter_counts) {
  const std::size_t before = allocations;
  const std::vector<int> one(100, 1);
  CHECK_EQ(allocations.load(), before + static_cast<std::size_t>(one[99]));
}

}  // namespace
