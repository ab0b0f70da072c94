// SPDX-License-Identifier: Apache-2.0
#include "receiver.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "wire/block_values.h"
#include "wire/frame.h"
#include "wire/xxh64.h"

namespace {
std::atomic<std::size_t> largest{0};  // allocation since it was last 0

void* recorded(std::size_t bytes) {
  std::size_t before = largest;
  while (before < bytes && !largest.compare_exchange_weak(before, bytes)) continue;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
}  // namespace

void* operator new(std::size_t bytes) { return recorded(bytes); }
void* operator new[](std::size_t bytes) { return recorded(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace fuzz {
namespace {

using namespace dgs::wire;

constexpr std::size_t kRoom = 70'000, kGuard = 16;  // room for the entries of several tasks
constexpr std::size_t kErrorText = 1024;            // the only thing that decoding may allocate

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "a frame broke this: %s\n", what);
  std::abort();
}

struct Backwards final : Pool {
  std::size_t fewest = 0;  // tasks of a step

  void each(std::size_t tasks, Task task) override {
    fewest = fewest == 0 ? tasks : std::min(fewest, tasks);
    for (std::size_t i = tasks; i > 0; --i) task(i - 1);
  }
};

// Kept from one frame to the next, as a session's buffers are.
struct Receiver {
  explicit Receiver(int mark) : unwritten(mark) {}

  const int unwritten;
  std::vector<std::int64_t> indices = std::vector<std::int64_t>(kRoom + 2 * kGuard, -7);
  std::vector<float> values = std::vector<float>(kRoom + 2 * kGuard, -7);
  Decoded decoded;
  Status status;

  // Where the frame says that it will write: what stood there before must not pass for its entries.
  void blot(ConstBytes frame) {
    if (frame.size() < kHeaderBytes) return;
    const auto count = std::min<std::uint64_t>(kRoom, load_le<std::uint64_t>(frame.data() + 40));
    std::fill_n(indices.begin() + kGuard, count, unwritten);
    std::fill_n(values.begin() + kGuard, count, static_cast<float>(unwritten));
  }
  void decode(ConstBytes frame, std::uint64_t numel, Pool* pool) {
    blot(frame);
    largest = 0;
    status = dgs::wire::decode(frame, numel, std::nullopt, std::span(indices).subspan(kGuard, kRoom),
                               std::span(values).subspan(kGuard, kRoom), &decoded, pool);
    require(largest <= kErrorText, "decoding allocates no more than the text of an error");
    require(guards_are_whole(), "decoding writes nothing beside the buffers that it is given");
  }
  bool guards_are_whole() const {
    const auto whole = [](const auto& all) {
      const auto untouched = [](auto value) { return value == -7; };
      return std::all_of(all.begin(), all.begin() + kGuard, untouched) &&
             std::all_of(all.end() - kGuard, all.end(), untouched);
    };
    return whole(indices) && whole(values);
  }
  std::span<const std::int64_t> got_indices() const {
    const bool sparse = decoded.form == BodyForm::kSparse;
    return std::span(indices).subspan(kGuard, sparse ? decoded.header.count : 0);
  }
  std::span<const float> got_values() const {
    return std::span(values).subspan(kGuard, decoded.form == BodyForm::kOpaque ? 0 : decoded.header.count);
  }
};

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

void require_same(const Receiver& a, const Receiver& b) {
  require(a.status.code == b.status.code && a.status.value == b.status.value &&
              a.status.detail == b.status.detail && std::strcmp(a.status.field, b.status.field) == 0,
          "the order of tasks does not change the error");
  if (!a.status.ok()) return;
  require(std::ranges::equal(a.got_indices(), b.got_indices()) && same_bits(a.got_values(), b.got_values()),
          "the order of tasks does not change the entries");
}

void require_meaning(const Receiver& got, std::uint64_t numel) {
  std::int64_t next = 0;
  for (const std::int64_t index : got.got_indices()) {
    require(index >= next && static_cast<std::uint64_t>(index) < numel, "indices increase within the vector");
    next = index + 1;
  }
  const bool sparse = got.decoded.form == BodyForm::kSparse;
  for (const float value : got.got_values()) {
    require(std::isfinite(value), "values are finite");
    require(!sparse || value != 0, "a sparse frame holds no zeros");
  }
}

// What was accepted can be sent on, and arrives the same.
void require_round_trip(const Receiver& got, std::uint64_t numel) {
  if (got.decoded.form == BodyForm::kOpaque) return;
  const Header& header = got.decoded.header;
  const auto indices = got.got_indices();
  const auto values = got.got_values();
  std::vector<std::uint8_t> frame(frame_capacity(header.count, header.codec, numel, 1, 0));
  std::size_t length = 0;
  Alone alone;
  Status status;
  if (got.decoded.form == BodyForm::kSparse) {
    const std::int64_t starts[] = {0, static_cast<std::int64_t>(indices.size())}, nnz[] = {starts[1]};
    Scratch scratch;
    status =
        encode_sparse(header, {}, {indices, values, starts, nnz}, numel, &scratch, frame, &length, &alone);
  } else {
    status = encode_dense(header, {}, values, frame, &length, &alone);
  }
  // Blocks cut elsewhere than the packer cuts them need not have one scale where it does.
  if (in_blocks(header.codec) && status.code == Code::kNotRepresentable) return;
  require(status.ok(), "what was received can be sent");
  static Receiver again(-9);
  again.decode(ConstBytes(frame).first(length), numel, &alone);
  require(again.status.ok(), "what was sent can be received");
  if (again.decoded.form != got.decoded.form) return;  // entries that are smaller as a whole vector
  require(std::ranges::equal(again.got_indices(), indices) && same_bits(again.got_values(), values),
          "it arrives the same");
}

std::size_t fewest_tasks = 0;

}  // namespace

std::size_t tasks() { return fewest_tasks; }

void reseal(Bytes frame) {
  Header header;
  if (frame.size() < kHeaderBytes || std::memcmp(frame.data(), "DGSF\1", 5) != 0) return;
  // Whatever the header says, under a check that is true, and then with a length and a checksum that are.
  store_le<std::uint32_t>(frame.data() + 12, 0);
  store_le(frame.data() + 12, static_cast<std::uint32_t>(xxh64(frame.first(kHeaderBytes))));
  if (!read_header(frame, &header).ok()) return;
  header.payload_length = frame.size() - kHeaderBytes;
  header.checksum = xxh64(frame.subspan(kHeaderBytes));
  write_header(header, frame.data());
}

bool receive(ConstBytes bytes, std::uint64_t numel) {
  const std::vector<std::uint8_t> frame(bytes.begin(), bytes.end());  // with nothing readable behind its end
  Alone alone;
  Backwards backwards;
  static Receiver got(-7), again(-8);
  got.decode(frame, numel, &alone);
  again.decode(frame, numel, &backwards);
  fewest_tasks = backwards.fewest;
  require_same(got, again);
  if (!got.status.ok()) {
    require(std::string(code_name(got.status.code)) != "argument", "no frame is the caller's mistake");
    return false;
  }
  require_meaning(got, numel);
  require_round_trip(got, numel);
  return true;
}

}  // namespace fuzz
