// SPDX-License-Identifier: Apache-2.0
#include "wire/thread_pool.h"

#include <algorithm>

namespace dgs::wire {

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> held(mutex_);
    ended_ = true;
  }
  called_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::each(std::size_t tasks, Task task, std::size_t most) {
  const std::size_t threads = std::min(tasks, most);
  if (threads <= 1 || !busy_.try_lock()) return Alone().each(tasks, task);
  const std::lock_guard<std::mutex> held(busy_, std::adopt_lock);
  while (threads_.size() + 1 < threads) threads_.emplace_back([this] { serve(); });
  help_wanted(&task, tasks, threads - 1);
  take_tasks(task);
  std::unique_lock<std::mutex> lock(mutex_);
  task_ = nullptr;  // whoever has not begun by now need not
  left_.wait(lock, [this] { return working_ == 0; });
}

void ThreadPool::help_wanted(const Task* task, std::size_t tasks, std::size_t places) {
  {
    const std::lock_guard<std::mutex> held(mutex_);
    tasks_ = tasks;
    next_ = 0;
    task_ = task;
    places_ = places;
  }
  called_.notify_all();
}

// Each thread takes the next task when it is done with one: on shared cores equal shares are not equal times.
void ThreadPool::take_tasks(const Task& task) {
  for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) task(i);
}

void ThreadPool::serve() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    called_.wait(lock, [this] { return ended_ || (task_ != nullptr && places_ > 0); });
    if (ended_) return;
    const Task task = *task_;
    --places_;
    ++working_;
    lock.unlock();
    take_tasks(task);
    lock.lock();
    if (--working_ == 0) left_.notify_one();
  }
}

}  // namespace dgs::wire
