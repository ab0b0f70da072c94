// SPDX-License-Identifier: Apache-2.0
// A session in steady state allocates nothing: the second message of a size, and every one after it. And the
// first one little beside its entries.
#include <atomic>
#include <cstdlib>
#include <new>
#include <span>
#include <vector>

#include "check.h"
#include "wire/block_values.h"
#include "wire/frame.h"

namespace {
std::atomic<std::size_t> allocations{0}, allocated{0};

void* counted(std::size_t bytes) {
  ++allocations;
  allocated += bytes;
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

// What a session keeps from one message to the next.
struct Session {
  std::vector<std::int64_t> indices, nearly_all, got_indices;
  std::vector<float> values, got_values;
  std::vector<std::uint8_t> frame;
  Scratch scratch;
  Decoded decoded;

  explicit Session(bool zeros) {
    for (std::uint64_t i = 0; i < kNumel; i += 1 + i % 199) {
      indices.push_back(static_cast<std::int64_t>(i));
      values.push_back(zeros && i % 3 == 0 ? 0.0f : 1.0f);
    }
    nearly_all.resize(indices.size());
    got_indices.resize(indices.size());
    got_values.resize(indices.size());
    frame.resize(frame_capacity(indices.size(), Codec::kFloat32, kNumel, 1, 0));
  }

  void exchange(Codec codec, Pool* pool) { exchange(indices, kNumel, codec, pool); }

  // All but every hundredth, which is smaller as a whole vector.
  void exchange_most(Codec codec, Pool* pool) {
    const std::size_t count = nearly_all.size() / 100 * 99;
    for (std::size_t i = 0; i < count; ++i) nearly_all[i] = static_cast<std::int64_t>(i + i / 99);
    exchange(std::span(nearly_all).first(count), nearly_all.size(), codec, pool);
    CHECK(in_blocks(codec) || decoded.form == BodyForm::kDense);
  }

  void exchange(std::span<const std::int64_t> sent_indices, std::uint64_t numel, Codec codec, Pool* pool) {
    const std::int64_t starts[] = {0, static_cast<std::int64_t>(sent_indices.size())}, nnz[] = {starts[1]};
    const auto sent_values = std::span<const float>(values).first(sent_indices.size());
    Header header;
    header.kind = 1;
    header.codec = codec;
    std::size_t length = 0;
    CHECK(encode_sparse(header, {}, {sent_indices, sent_values, starts, nnz}, numel, &scratch, frame, &length,
                        pool)
              .ok());
    receive(length, numel, pool);
  }

  void exchange_whole(Codec codec, Pool* pool) {
    Header header;
    header.kind = 3;
    header.codec = codec;
    std::size_t length = 0;
    CHECK(encode_dense(header, {}, values, frame, &length, pool).ok());
    receive(length, values.size(), pool);
  }

 private:
  void receive(std::size_t length, std::uint64_t numel, Pool* pool) {
    CHECK(
        decode(ConstBytes(frame).first(length), numel, std::nullopt, got_indices, got_values, &decoded, pool)
            .ok());
  }
};

void expect_steady(const auto& exchange) {
  exchange();
  const std::size_t before = allocations;
  for (int i = 0; i < 5; ++i) exchange();
  CHECK_EQ(allocations.load(), before);
}

TEST(messages_after_the_first_allocate_nothing) {
  Alone alone;
  for (const bool zeros : {false, true}) {
    Session session(zeros);
    for (int code = 1; code <= static_cast<int>(Codec::kSign); ++code) {
      const auto codec = static_cast<Codec>(code);
      expect_steady([&] { session.exchange(codec, &alone); });
      if (!in_blocks(codec)) expect_steady([&] { session.exchange_whole(codec, &alone); });
      if (!zeros) expect_steady([&] { session.exchange_most(codec, &alone); });
    }
  }
}

TEST(the_first_message_allocates_a_fraction_of_its_entries) {
  Alone alone;
  for (const bool zeros : {false, true}) {
    for (const Codec codec : {Codec::kFloat32, Codec::kInt8}) {
      Session session(zeros);
      const std::size_t before = allocated;
      session.exchange(codec, &alone);
      CHECK(allocated - before < 12 * session.indices.size() / 10);
    }
  }
}

TEST(the_counters_count) {
  const std::size_t before = allocations, bytes = allocated;
  const std::vector<int> one(100, 1);
  CHECK_EQ(allocations.load(), before + static_cast<std::size_t>(one[99]));
  CHECK_EQ(allocated.load(), bytes + 100 * sizeof(int));
}

}  // namespace
