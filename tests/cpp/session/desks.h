// SPDX-License-Identifier: Apache-2.0
// python/dgs/server/desks.py: a few desks for any number of sessions, and the packers of their answers.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "frames.h"

namespace dgs::session {

// Scratch for one frame at a time: what came, and what a pull selects.
struct Desk : Unpacker {
  std::vector<int64_t> indices = std::vector<int64_t>(static_cast<std::size_t>(layout.starts.back()));
  std::vector<float> values = std::vector<float>(indices.size());
  std::vector<int64_t> nnz = std::vector<int64_t>(layout.counts.size());
};

// Each desk has a thread that stays. A session's thread waits while a desk's works for it.
class Desks {
 public:
  explicit Desks(int count) : kept_(static_cast<std::size_t>(count) + 1) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this] { serve(); });
  }
  ~Desks() {
    {
      const std::lock_guard<std::mutex> held(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  Desks(const Desks&) = delete;
  Desks& operator=(const Desks&) = delete;

  void run(std::function<void(Desk&)> work) {
    Task task{std::move(work)};
    std::unique_lock<std::mutex> held(mutex_);
    waiting_.push_back(&task);
    changed_.notify_all();
    changed_.wait(held, [&task] { return task.done; });
  }

  // A packer for an answer: of those that are kept, or another, as there are as many as answers are under
  // way.
  std::unique_ptr<Packer> take() {
    const std::lock_guard<std::mutex> held(idle_mutex_);
    if (idle_.empty()) return std::make_unique<Packer>();
    std::unique_ptr<Packer> packer = std::move(idle_.back());
    idle_.pop_back();
    return packer;
  }
  void give_back(std::unique_ptr<Packer> packer) {
    const std::lock_guard<std::mutex> held(idle_mutex_);
    if (idle_.size() < kept_) idle_.push_back(std::move(packer));
  }
  std::size_t idle() {
    const std::lock_guard<std::mutex> held(idle_mutex_);
    return idle_.size();
  }

 private:
  struct Task {
    std::function<void(Desk&)> work;
    bool done = false;
  };

  void serve() {
    Desk desk;
    std::unique_lock<std::mutex> held(mutex_);
    while (true) {
      changed_.wait(held, [this] { return closing_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      Task* task = waiting_.front();
      waiting_.pop_front();
      held.unlock();
      task->work(desk);
      held.lock();
      task->done = true;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task*> waiting_;
  bool closing_ = false;
  std::vector<std::thread> threads_;
  std::mutex idle_mutex_;
  std::vector<std::unique_ptr<Packer>> idle_;
  const std::size_t kept_;
};

// An answer stands from its packing, at a desk, until its session has sent it.
class Answer {
 public:
  explicit Answer(Desks* desks) : desks_(desks), packer_(desks->take()) {}
  ~Answer() { desks_->give_back(std::move(packer_)); }
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
  Packer* operator->() const { return packer_.get(); }

 private:
  Desks* desks_;
  std::unique_ptr<Packer> packer_;
};

}  // namespace dgs::session
