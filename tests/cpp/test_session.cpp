// SPDX-License-Identifier: Apache-2.0
// The server's sessions in C++: the locking of python/dgs/server (lock.py, desks.py, state.py) around the
// kernels and the packer, with workers that exchange and join at once. Also built with the thread sanitizer,
// which sees what the Python tests cannot: whether every access to theta and to a desk is ordered.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/apply.h"
#include "cpu/capability.h"
#include "cpu/select.h"
#include "wire/frame.h"

namespace {

using namespace dgs;

// Whoever works at a desk is one thread.
struct Alone {
  template <class Body>
  void operator()(std::size_t n, const Body& body) const {
    for (std::size_t i = 0; i < n; ++i) body(static_cast<int64_t>(i));
  }
};

// lock.py, line for line: a waiting writer holds back later readers; those that waited for it go next.
class SharedLock {
 public:
  void lock_shared() {
    std::unique_lock<std::mutex> held(mutex_);
    bool waited = false;
    while (writing_ || (writers_waiting_ > 0 && passes_ == 0)) {
      waited = true;
      ++readers_waiting_;
      changed_.wait(held);
      --readers_waiting_;
    }
    ++readers_;
    if (waited && passes_ > 0) --passes_;
  }
  void unlock_shared() {
    const std::lock_guard<std::mutex> held(mutex_);
    --readers_;
    changed_.notify_all();
  }
  void lock() {
    std::unique_lock<std::mutex> held(mutex_);
    ++writers_waiting_;
    changed_.wait(held, [this] { return !writing_ && readers_ == 0 && passes_ == 0; });
    --writers_waiting_;
    writing_ = true;
  }
  void unlock() {
    const std::lock_guard<std::mutex> held(mutex_);
    writing_ = false;
    passes_ = readers_waiting_;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool writing_ = false;
  int readers_ = 0, writers_waiting_ = 0, readers_waiting_ = 0, passes_ = 0;
};

class Shared {
 public:
  explicit Shared(SharedLock* lock) : lock_(lock) { lock_->lock_shared(); }
  ~Shared() { lock_->unlock_shared(); }

 private:
  SharedLock* lock_;
};

// Segments of which one is sampled and one selected whole.
struct Layout {
  std::vector<int64_t> offsets{0, 300, 40'300, 40'300, 41'000}, counts{300, 400, 0, 30}, starts{0};

  Layout() {
    for (const int64_t k : counts) starts.push_back(starts.back() + k);
  }
  int64_t numel() const { return offsets.back(); }
  Segments segments() const { return {offsets.data(), static_cast<int64_t>(counts.size())}; }
  template <class T>
  std::vector<T*> parts(std::vector<float>& flat) const {
    std::vector<T*> pointers;
    for (std::size_t s = 0; s < counts.size(); ++s) pointers.push_back(flat.data() + offsets[s]);
    return pointers;
  }
};

const Layout layout;

// Entries in ascending order: what came over the wire, or is to go.
struct Sparse {
  std::vector<int64_t> indices, starts, nnz;
  std::vector<float> values;

  void place() {  // in the segments' slots
    starts.clear();
    nnz.clear();
    for (const int64_t offset : layout.offsets) {
      starts.push_back(std::lower_bound(indices.begin(), indices.end(), offset) - indices.begin());
    }
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) nnz.push_back(starts[s + 1] - starts[s]);
  }
  Entries entries() const { return {indices.data(), values.data(), starts.data(), nnz.data()}; }
};

void add(std::vector<float>& x, const Entries& entries, bool subtract) {
  const auto ranges = cpu::entry_ranges(entries, layout.segments().count);
  cpu::sparse_add(layout.parts<float>(x).data(), layout.segments(), entries, ranges, subtract, Alone{});
}

// What one frame at a time is worked on with; a worker has one of its own.
struct Desk {
  wire::Scratch scratch;
  Sparse came;
  std::vector<int64_t> indices = std::vector<int64_t>(static_cast<std::size_t>(layout.starts.back()));
  std::vector<float> values = std::vector<float>(indices.size());
  std::vector<int64_t> nnz = std::vector<int64_t>(layout.counts.size());

  void unpack(const std::vector<std::uint8_t>& frame) {
    came.indices.resize(static_cast<std::size_t>(layout.numel()));
    came.values.resize(came.indices.size());
    wire::Decoded decoded;
    wire::Alone alone;
    const auto numel = static_cast<std::uint64_t>(layout.numel());
    CHECK(wire::decode(frame, numel, std::nullopt, came.indices, came.values, &decoded, &alone).ok());
    CHECK(decoded.form == wire::BodyForm::kSparse);
    came.indices.resize(decoded.header.count);
    came.values.resize(decoded.header.count);
    came.place();
  }
  void pack(const wire::Entries& entries, std::vector<std::uint8_t>* frame) {
    wire::Header header;
    header.kind = 1;
    header.codec = wire::Codec::kFloat32;
    const auto numel = static_cast<std::uint64_t>(layout.numel());
    frame->resize(wire::frame_capacity(entries.indices.size(), header.codec, numel, layout.counts.size(), 0));
    std::size_t length = 0;
    wire::Alone alone;
    CHECK(wire::encode_sparse(header, {}, entries, numel, &scratch, *frame, &length, &alone).ok());
    frame->resize(length);
  }
};

// A few desks for any number of sessions.
class Desks {
 public:
  explicit Desks(int count) {
    for (int i = 0; i < count; ++i) free_.push_back(std::make_unique<Desk>());
  }
  template <class Work>
  void run(const Work& work) {
    std::unique_ptr<Desk> desk = take();
    work(*desk);
    const std::lock_guard<std::mutex> held(mutex_);
    free_.push_back(std::move(desk));
    freed_.notify_one();
  }

 private:
  std::unique_ptr<Desk> take() {
    std::unique_lock<std::mutex> held(mutex_);
    freed_.wait(held, [this] { return !free_.empty(); });
    std::unique_ptr<Desk> desk = std::move(free_.back());
    free_.pop_back();
    return desk;
  }

  std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<std::unique_ptr<Desk>> free_;
};

struct Server {
  std::vector<float> theta;
  std::vector<Sparse> pushes;  // in the order of the versions that they made
  SharedLock lock;
  Desks desks{2};

  explicit Server(std::vector<float> first) : theta(std::move(first)) {}

  std::vector<float> snapshot() {
    std::vector<float> copy(theta.size());
    const Shared held(&lock);
    std::copy(theta.begin(), theta.end(), copy.begin());
    return copy;
  }

  void push(const Sparse& sent) {
    const std::lock_guard<SharedLock> held(lock);
    const auto ranges = cpu::entry_ranges(sent.entries(), layout.segments().count);
    CHECK_EQ(cpu::sparse_overflow(layout.parts<const float>(theta).data(), layout.segments(), sent.entries(),
                                  ranges, Alone{}),
             -1);
    add(theta, sent.entries(), true);
    pushes.push_back(sent);
  }

  void pull(std::vector<float>& mirror, Desk& desk) {
    std::vector<cpu::Operand> operands;
    for (std::size_t s = 0; s < layout.counts.size(); ++s) {
      const int64_t at = layout.offsets[s];
      operands.push_back({.kind = cpu::Kind::kDifference, .x = theta.data() + at, .y = mirror.data() + at});
    }
    const Slots slots{desk.indices.data(), desk.values.data(), layout.starts.data(), desk.nnz.data()};
    {
      const Shared held(&lock);
      cpu::select_top(cpu::loops(), operands, layout.segments(), {layout.counts.data(), false}, slots,
                      Alone{});
    }
    cpu::loops().quantize(desk.values.data(), static_cast<int64_t>(desk.values.size()), Codec::kFloat32);
    add(mirror, {slots.indices, slots.values, slots.starts, slots.nnz}, false);
  }

  // What a session does with a push; `frame` becomes the answer.
  void answer(std::vector<float>& mirror, std::vector<std::uint8_t>* frame) {
    desks.run([&](Desk& desk) {
      desk.unpack(*frame);
      push(desk.came);
      pull(mirror, desk);
      desk.pack({desk.indices, desk.values, layout.starts, desk.nnz}, frame);
    });
  }
};

std::vector<float> normal(uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> x(static_cast<std::size_t>(layout.numel()));
  for (float& value : x) value = distribution(random);
  return x;
}

Sparse some(std::mt19937& random) {
  Sparse made;
  for (auto at = static_cast<int64_t>(random() % 400); at < layout.numel(); at += 1 + random() % 400) {
    made.indices.push_back(at);
    made.values.push_back(static_cast<float>(static_cast<int>(random() % 2001) - 1000) / 512.0f + 0.001f);
  }
  made.place();
  return made;
}

// A worker and its session. Now and then it dies, and another joins with a snapshot.
void live(Server& server, uint32_t seed, int exchanges) {
  std::mt19937 random(seed);
  std::vector<float> mirror = server.snapshot(), w = mirror;
  std::vector<std::uint8_t> frame;
  Desk own;
  for (int i = 0; i < exchanges; ++i) {
    if (random() % 20 == 0) w = mirror = server.snapshot();
    const Sparse update = some(random);
    own.pack({update.indices, update.values, update.starts, update.nnz}, &frame);
    server.answer(mirror, &frame);
    own.unpack(frame);
    add(w, own.came.entries(), false);
    CHECK(w == mirror);
  }
}

TEST(mirrors_are_the_workers_and_theta_follows_from_the_pushes) {
  constexpr int kWorkers = 8, kExchanges = 60;
  const std::vector<float> first = normal(1);
  Server server(first);
  std::vector<std::thread> workers;
  for (uint32_t k = 0; k < kWorkers; ++k) workers.emplace_back([&, k] { live(server, 100 + k, kExchanges); });
  for (std::thread& worker : workers) worker.join();
  CHECK_EQ(server.pushes.size(), std::size_t{kWorkers * kExchanges});
  std::vector<float> again = first;
  for (const Sparse& push : server.pushes) add(again, push.entries(), true);
  CHECK(again == server.theta);
}

TEST(neither_readers_nor_writers_that_never_stop_keep_the_others_out) {
  SharedLock lock;
  int value = 0;
  std::atomic<int> reads{0};
  std::vector<std::thread> threads;
  for (int k = 0; k < 3; ++k) {
    threads.emplace_back([&] {  // until the writers are through, and never all out at once
      for (bool through = false; !through;) {
        const Shared held(&lock);
        through = value == 400;
        ++reads;
      }
    });
    threads.emplace_back([&] {
      for (bool through = false; !through;) {
        const std::lock_guard<SharedLock> held(lock);
        through = value == 400;
        if (!through) ++value;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(value, 400);
  CHECK(reads >= 3);
}

}  // namespace
