// SPDX-License-Identifier: Apache-2.0
// Stackful fibers on one OS thread, known to AddressSanitizer. The switch is written by
// hand on x86-64; elsewhere (and with SIMT_USE_UCONTEXT) it is ucontext's, about ten times slower.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#if !defined(__x86_64__) && !defined(SIMT_USE_UCONTEXT)
#define SIMT_USE_UCONTEXT 1
#endif
#if defined(SIMT_USE_UCONTEXT)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#include "clocks.h"

namespace simt {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr size_t kGuardBytes = 4096;

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // ASan's
#if defined(SIMT_USE_UCONTEXT)
  ucontext_t context;
#endif
};

inline Fiber host;  // whoever called launch()

#if !defined(SIMT_USE_UCONTEXT)
// Saves the callee-saved registers and the stack pointer, loads the other fiber's.
__attribute__((naked, noinline, no_sanitize("thread", "address"))) inline void swap_stacks(void** /*save*/,
                                                                                           void* /*load*/) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#endif

// ASan: the fiber `to` runs now; what it came from was the host the first time, whose stack is learnt here.
SIMT_UNSEEN inline void arrived([[maybe_unused]] Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(to.fake_stack, &bottom, &bytes);
  if (&to != &host && host.stack == nullptr) {
    host.stack = static_cast<char*>(const_cast<void*>(bottom));
    host.stack_bytes = bytes;
  }
#endif
}

SIMT_UNSEEN inline void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(SIMT_USE_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  swap_stacks(&from.stack_pointer, to.stack_pointer);
#endif
  arrived(from);
}

// Makes the next switch to `fiber` begin at `entry`, which must not return. The stack has a guard page below
// it.
SIMT_UNSEEN inline void prepare(Fiber& fiber, void (*entry)()) {
  if (fiber.stack == nullptr) {
    void* memory = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0)
      throw std::runtime_error("simt: no memory for the stack of a thread");
    fiber.stack = static_cast<char*>(memory) + kGuardBytes;
    fiber.stack_bytes = kStackBytes;
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack, fiber.stack_bytes);
#endif
  fiber.fake_stack = nullptr;
#if defined(SIMT_USE_UCONTEXT)
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = fiber.stack_bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  const uintptr_t top = (reinterpret_cast<uintptr_t>(fiber.stack) + fiber.stack_bytes) & ~uintptr_t{63};
  void** stack = reinterpret_cast<void**>(top);
  *--stack = nullptr;                         // keeps the stack aligned as after a call
  *--stack = reinterpret_cast<void*>(entry);  // where swap_stacks returns to
  for (int saved = 0; saved < 6; ++saved) *--stack = nullptr;
  fiber.stack_pointer = stack;
#endif
}

}  // namespace simt
