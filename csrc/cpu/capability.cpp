// SPDX-License-Identifier: Apache-2.0
#include "cpu/capability.h"

#include <atomic>

namespace dgs::cpu {
namespace {

const Loops* avx2() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) return &kAvx2;
#endif
  return nullptr;
}

const Loops* avx512() {
#if defined(__x86_64__)
  if (avx2() != nullptr && __builtin_cpu_supports("avx512f")) return &kAvx512;
#endif
  return nullptr;
}

const Loops* best() {
  if (avx512() != nullptr) return avx512();
  return avx2() != nullptr ? avx2() : &kPortable;
}

std::atomic<const Loops*>& in_use() {
  static std::atomic<const Loops*> loops{best()};
  return loops;
}

}  // namespace

std::vector<const Loops*> capabilities() { return {&kPortable, avx2(), avx512()}; }
const Loops& loops() { return *in_use().load(); }
void use_loops(const Loops& wanted) { in_use() = &wanted; }

}  // namespace dgs::cpu
