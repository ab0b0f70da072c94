// SPDX-License-Identifier: Apache-2.0
// CUDA's vector types with CUDA's alignments, and loads and stores with a cache hint. On a device an access
// that is not aligned to its own size is an error; here every access in device code is checked
// (-fsanitize=alignment, whose report comes to access_fault below), in all modes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <type_traits>

#include "thread.h"

#define SIMT_VECTOR2(T, Name)                        \
  struct alignas(2 * sizeof(T)) Name##2 { T x, y; }; \
  inline Name##2 make_##Name##2(T x, T y) { return {x, y}; }
#define SIMT_VECTOR4(T, Name)                              \
  struct alignas(4 * sizeof(T)) Name##4 { T x, y, z, w; }; \
  inline Name##4 make_##Name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTOR2(unsigned char, uchar)
SIMT_VECTOR4(unsigned char, uchar)
SIMT_VECTOR2(short, short)
SIMT_VECTOR4(short, short)
SIMT_VECTOR2(unsigned short, ushort)
SIMT_VECTOR4(unsigned short, ushort)
SIMT_VECTOR2(int, int)
SIMT_VECTOR4(int, int)
SIMT_VECTOR2(unsigned, uint)
SIMT_VECTOR4(unsigned, uint)
SIMT_VECTOR2(float, float)
SIMT_VECTOR4(float, float)
SIMT_VECTOR2(double, double)
SIMT_VECTOR2(long long, longlong)
SIMT_VECTOR2(unsigned long long, ulonglong)
#undef SIMT_VECTOR2
#undef SIMT_VECTOR4

namespace simt {

// What the compiler tells of an access (the first members of the sanitizers' TypeMismatchData).
struct AccessSite {
  const char* file;
  uint32_t line, column;
  const void* type;
  unsigned char log_alignment;
};

SIMT_UNSEEN inline void access_fault(const char* file, uint32_t line, unsigned log_alignment,
                                     const void* address) {
  static constexpr const char* kMessages[] = {
      "null pointer", "misaligned access: not at a multiple of 2 bytes",
      "misaligned access: not at a multiple of 4 bytes", "misaligned access: not at a multiple of 8 bytes",
      "misaligned access: not at a multiple of 16 bytes"};
  const char* const message = kMessages[address == nullptr ? 0 : std::min(log_alignment, 4u)];
  if (current != nullptr) fail(message, file, line);
  std::fprintf(stderr, "simt: host code: %s:%u: %s\n", file, line, message);
  std::abort();
}

template <class T>
void check_aligned(const T* address, const std::source_location& place) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0)
    access_fault(place.file_name(), place.line(), __builtin_ctz(alignof(T)), address);
}

}  // namespace simt

// The compiler calls these where an address is null or misaligned.
extern "C" {
__attribute__((used)) SIMT_UNSEEN inline void __ubsan_handle_type_mismatch_v1(void* site, void* address) {
  const auto& at = *static_cast<const simt::AccessSite*>(site);
  simt::access_fault(at.file, at.line, at.log_alignment, address);
}
__attribute__((used)) SIMT_UNSEEN inline void __ubsan_handle_type_mismatch_v1_abort(void* site,
                                                                                    void* address) {
  __ubsan_handle_type_mismatch_v1(site, address);
}
}

#define SIMT_LOAD(name)                                                                  \
  template <class T>                                                                     \
  T name(const T* p, const std::source_location& at = std::source_location::current()) { \
    simt::check_aligned(p, at);                                                          \
    return *p;                                                                           \
  }
#define SIMT_STORE(name)                                                        \
  template <class T>                                                            \
  void name(T* p, std::type_identity_t<T> value,                                \
            const std::source_location& at = std::source_location::current()) { \
    simt::check_aligned(p, at);                                                 \
    *p = value;                                                                 \
  }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)
#undef SIMT_LOAD
#undef SIMT_STORE
