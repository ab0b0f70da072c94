// SPDX-License-Identifier: Apache-2.0
// The server's sessions in C++: the locking of python/dgs/server (tests/cpp/session) around the kernels and
// the packer, with workers that exchange and join at once while checkpoints are taken. Also built with the
// thread sanitizer, which sees what the Python tests cannot: whether every access to theta, to a mirror, to a
// desk and to an answer is ordered.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "check.h"
#include "session/desks.h"
#include "session/frames.h"
#include "session/lock.h"
#include "session/server.h"
#include "wire/xxh64.h"

namespace {

using namespace dgs;
using namespace dgs::session;

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

uint64_t digest(const std::vector<float>& x) {
  return wire::xxh64({reinterpret_cast<const std::uint8_t*>(x.data()), x.size() * sizeof(float)});
}

// A session as a checkpoint found it: the digest of its mirror after so many turns.
struct Found {
  uint32_t rank;
  std::size_t turns;
  uint64_t digest;
};

// A worker and its session. Now and then it dies, and another joins with a snapshot; or it takes a
// checkpoint.
struct Life {
  std::vector<uint64_t> held;  // digests of the worker's weights after each turn of its session
  std::vector<Found> found;

  void live(Server& server, uint32_t rank, int exchanges) {
    std::mt19937 random(100 + rank);
    Session* session = server.admit(rank);
    std::vector<float> w = server.join(session);
    held.push_back(digest(w));
    Packer own;
    Unpacker reply;
    for (int i = 0; i < exchanges; ++i) {
      if (random() % 20 == 0) held.push_back(digest(w = server.join(session)));
      if (random() % 20 == 0) look(server.checkpoint());
      const Sparse update = some(random);
      own.pack({update.indices, update.values, update.starts, update.nnz});
      std::optional<Answer> answer;
      server.exchange(session, own.frame, &answer);
      if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));  // on a slow link
      reply.unpack((*answer)->frame);
      add(w, reply.came.entries(), false);
      held.push_back(digest(w));
    }
  }

  void look(const Checkpoint& made) {
    std::size_t applied = 0;
    for (const Session& session : made.sessions) {
      CHECK_EQ(session.applied, session.answered);
      applied += static_cast<std::size_t>(session.applied);
      if (session.turns > 0) found.push_back({session.rank, session.turns, digest(session.mirror)});
    }
    CHECK_EQ(made.model.version, applied);
  }
};

TEST(mirrors_are_the_workers_and_theta_follows_from_the_pushes) {
  constexpr uint32_t kWorkers = 8;
  constexpr int kExchanges = 60;
  const std::vector<float> first = normal(1);
  Server server(first);
  std::array<Life, kWorkers> lives;
  std::vector<std::thread> workers;
  for (uint32_t k = 0; k < kWorkers; ++k) {
    workers.emplace_back([&, k] { lives[k].live(server, k, kExchanges); });
  }
  for (std::thread& worker : workers) worker.join();
  CHECK_EQ(server.pushes().size(), std::size_t{kWorkers * kExchanges});
  std::vector<float> again = first;
  for (const Sparse& push : server.pushes()) add(again, push.entries(), true);
  CHECK(again == server.theta());
  const Checkpoint last = server.checkpoint();
  for (Life& life : lives) {
    life.look(last);
    for (const Found& found : life.found) CHECK_EQ(found.digest, lives[found.rank].held.at(found.turns - 1));
  }
}

TEST(an_answer_stands_until_it_is_sent_and_a_few_are_kept) {
  Desks desks(2);
  std::array<std::optional<Answer>, 7> answers;
  std::vector<std::thread> sessions;
  for (std::size_t k = 0; k < answers.size(); ++k) {
    sessions.emplace_back([&desks, &answer = answers[k], k] {
      desks.run([&](Desk&) {
        answer.emplace(&desks);
        (*answer)->frame.assign(1000 + k, static_cast<std::uint8_t>(k));
      });
    });
  }
  for (std::thread& session : sessions) session.join();
  CHECK_EQ(desks.idle(), std::size_t{0});
  for (std::size_t k = 0; k < answers.size(); ++k) {
    CHECK((*answers[k])->frame == std::vector<std::uint8_t>(1000 + k, static_cast<std::uint8_t>(k)));
  }
  for (std::optional<Answer>& answer : answers) answer.reset();
  CHECK_EQ(desks.idle(), std::size_t{3});
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
