// SPDX-License-Identifier: Apache-2.0
// python/dgs/server/lock.py.
#pragma once

#include <condition_variable>
#include <mutex>

namespace dgs::session {

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
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

 private:
  SharedLock* lock_;
};

}  // namespace dgs::session
