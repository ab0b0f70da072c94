// SPDX-License-Identifier: Apache-2.0
// Denormal numbers as IEEE 754 has them. torch.set_flush_denormal tells the calling thread alone to take them
// for zeros, so that a result would depend on who computed it.
#pragma once

#include <cstdint>
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

namespace dgs::cpu {

// While it lives, its thread computes with denormals; afterwards as it did before.
class KeepDenormals {
 public:
  KeepDenormals() : before_(control()) {
    if (before_ & kFlushing) set_control(before_ & ~kFlushing);
  }
  ~KeepDenormals() {
    if (before_ & kFlushing) set_control(before_);
  }
  KeepDenormals(const KeepDenormals&) = delete;
  KeepDenormals& operator=(const KeepDenormals&) = delete;

 private:
  // The barriers keep what the compiler computes from memory on its side of the change.
#if defined(__x86_64__) || defined(__i386__)
  static constexpr uint64_t kFlushing = 0x8040;  // of MXCSR: flush to zero, denormals are zeros
  static uint64_t control() { return _mm_getcsr(); }
  static void set_control(uint64_t control) {
    asm volatile("" ::: "memory");
    _mm_setcsr(static_cast<uint32_t>(control));
    asm volatile("" ::: "memory");
  }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlushing = uint64_t{1} << 24;  // of FPCR: FZ
  static uint64_t control() {
    uint64_t control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    return control;
  }
  static void set_control(uint64_t control) { asm volatile("msr fpcr, %0" ::"r"(control) : "memory"); }
#else
  static constexpr uint64_t kFlushing = 0;  // not known how to ask
  static uint64_t control() { return 0; }
  static void set_control(uint64_t) {}
#endif

  uint64_t before_;
};

}  // namespace dgs::cpu
