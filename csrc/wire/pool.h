// SPDX-License-Identifier: Apache-2.0
// Who does the tasks of one message. No result of the packer depends on the number of threads or on their
// order: tasks write to places of their own, and of several errors the one of the lowest task is reported.
#pragma once

#include <cstddef>
#include <limits>
#include <mutex>
#include <utility>

#include "wire/status.h"

namespace dgs::wire {

// A callable that is not owned, so that handing tasks to a pool allocates nothing.
class Task {
 public:
  template <class Body>
  Task(const Body& body)  // NOLINT: made from a lambda at the call
      : body_(&body), call_([](const void* it, std::size_t i) { (*static_cast<const Body*>(it))(i); }) {}

  void operator()(std::size_t i) const { call_(body_, i); }

 private:
  const void* body_;
  void (*call_)(const void*, std::size_t);
};

class Pool {
 public:
  virtual ~Pool() = default;
  // Calls task(i) once for each i below `tasks`, on any threads, and returns when all are done.
  virtual void each(std::size_t tasks, Task task) = 0;
};

class Alone final : public Pool {
 public:
  void each(std::size_t tasks, Task task) override {
    for (std::size_t i = 0; i < tasks; ++i) task(i);
  }
};

// The error of the lowest task that has one.
class FirstFailure {
 public:
  void note(std::size_t task, Status status) {
    if (status.ok()) return;
    const std::lock_guard<std::mutex> held(mutex_);
    if (task < task_) {
      task_ = task;
      status_ = std::move(status);
    }
  }

  Status take() { return std::move(status_); }  // once all tasks are done

 private:
  std::mutex mutex_;
  std::size_t task_ = std::numeric_limits<std::size_t>::max();
  Status status_;
};

}  // namespace dgs::wire
