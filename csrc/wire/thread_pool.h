// SPDX-License-Identifier: Apache-2.0
// Threads that stay, for messages large enough to be worth waking them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "wire/pool.h"

namespace dgs::wire {

// One message at a time has the threads; whoever comes meanwhile does its tasks alone, so that many sessions
// do not put more threads to work than there are cores. The caller takes tasks too and waits only for threads
// that have begun: a process forked from this one has none, and does everything by itself.
class ThreadPool {
 public:
  ThreadPool() = default;
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // As Pool::each, on at most `most` threads with the caller's; those that are missing are started.
  void each(std::size_t tasks, Task task, std::size_t most);

 private:
  void serve();
  void take_tasks(const Task& task);
  void help_wanted(const Task* task, std::size_t tasks, std::size_t places);

  std::mutex busy_;  // held by the caller whose message has the threads
  std::vector<std::thread> threads_;

  std::mutex mutex_;  // guards the rest
  std::condition_variable called_, left_;
  const Task* task_ = nullptr;  // null where there is nothing to begin on
  std::size_t places_ = 0;      // how many threads may still begin
  std::size_t working_ = 0;
  bool ended_ = false;

  std::atomic<std::size_t> tasks_{0}, next_{0};  // not changed while a thread is working
};

// A pool's threads, or some of them.
class Threads final : public Pool {
 public:
  Threads(ThreadPool* pool, std::size_t most) : pool_(pool), most_(most) {}
  void each(std::size_t tasks, Task task) override { pool_->each(tasks, task, most_); }

 private:
  ThreadPool* pool_;
  std::size_t most_;
};

}  // namespace dgs::wire
