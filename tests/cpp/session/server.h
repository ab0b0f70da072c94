// SPDX-License-Identifier: Apache-2.0
// python/dgs/server/{state,exchange,reception}.py: theta under a lock, mirrors under a gate.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "../check.h"
#include "cpu/apply.h"
#include "cpu/capability.h"
#include "cpu/select.h"
#include "desks.h"
#include "frames.h"
#include "lock.h"

namespace dgs::session {

// What the server holds of one worker. Nothing here is atomic: desk after desk works on it.
struct Session {
  std::uint32_t rank;
  std::vector<float> mirror = {};
  int applied = 0;        // pushes
  int answered = 0;       // of these: all, but while a desk is between the two
  std::size_t turns = 0;  // exchanges and snapshots
};

struct Snapshot {
  std::size_t version;
  std::vector<float> theta;
};

// What a checkpoint is written from: every session between two of its exchanges.
struct Checkpoint {
  Snapshot model;
  std::vector<Session> sessions;
};

class Server {
 public:
  explicit Server(std::vector<float> first) : theta_(std::move(first)) {}

  Session* admit(std::uint32_t rank) {
    const std::lock_guard<std::mutex> held(roster_);
    return sessions_.emplace_back(std::make_unique<Session>(Session{rank})).get();
  }

  // A snapshot that becomes the worker's mirror, in memory of its own.
  std::vector<float> join(Session* session) {
    std::vector<float> sent;
    desks.run([&](Desk&) {
      const Shared held(&gate_);
      sent = snapshot().theta;
      session->mirror = sent;
      ++session->turns;
    });
    return sent;
  }

  // What a session does with a push. The answer stands as long as `answer`.
  void exchange(Session* session, const std::vector<std::uint8_t>& frame, std::optional<Answer>* answer) {
    desks.run([&](Desk& desk) {
      desk.unpack(frame);
      const Shared held(&gate_);
      push(desk.came);
      ++session->applied;
      answer->emplace(&desks);
      pull(session->mirror, desk);
      (**answer)->pack({desk.indices, desk.values, layout.starts, desk.nnz});
      ++session->answered;
      ++session->turns;
    });
  }

  Checkpoint checkpoint() {
    const std::lock_guard<SharedLock> alone(gate_);
    Checkpoint made{snapshot(), {}};
    for (const Session* session : sessions()) made.sessions.push_back(*session);
    return made;
  }

  const std::vector<float>& theta() const { return theta_; }
  const std::vector<Sparse>& pushes() const { return pushes_; }

  Desks desks{2};

 private:
  std::vector<Session*> sessions() {
    const std::lock_guard<std::mutex> held(roster_);
    std::vector<Session*> there;
    for (const auto& session : sessions_) there.push_back(session.get());
    return there;
  }

  Snapshot snapshot() {
    std::vector<float> copy(theta_.size());
    const Shared held(&lock_);
    std::copy(theta_.begin(), theta_.end(), copy.begin());
    return {pushes_.size(), std::move(copy)};
  }

  void push(const Sparse& sent) {
    const std::lock_guard<SharedLock> held(lock_);
    const auto ranges = cpu::entry_ranges(sent.entries(), layout.segments().count);
    CHECK_EQ(cpu::sparse_overflow(layout.parts<const float>(theta_).data(), layout.segments(), sent.entries(),
                                  ranges, Alone{}),
             -1);
    add(theta_, sent.entries(), true);
    pushes_.push_back(sent);
  }

  void pull(std::vector<float>& mirror, Desk& desk) {
    std::vector<cpu::Operand> operands;
    for (std::size_t s = 0; s < layout.counts.size(); ++s) {
      const int64_t at = layout.offsets[s];
      operands.push_back({.kind = cpu::Kind::kDifference,
                          .x = theta_.data() + at,
                          .y = mirror.data() + at,
                          .y_out = mirror.data() + at});
    }
    const Slots slots{desk.indices.data(), desk.values.data(), layout.starts.data(), desk.nnz.data()};
    const Shared held(&lock_);
    cpu::select_top(cpu::loops(), operands, layout.segments(),
                    {layout.counts.data(), false, static_cast<cpu::CodecNumber>(Codec::kFloat32)}, slots,
                    Alone{});
  }

  std::vector<float> theta_;
  std::vector<Sparse> pushes_;  // in the order of the versions that they made
  SharedLock lock_;             // over both
  SharedLock gate_;             // over the sessions' mirrors and counts, which their own desks share
  std::mutex roster_;
  std::vector<std::unique_ptr<Session>> sessions_;
};

}  // namespace dgs::session
