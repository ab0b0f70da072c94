// SPDX-License-Identifier: Apache-2.0
// Shared memory: an array is made when the first thread of a block comes to its declaration.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <source_location>

#include "race.h"

namespace simt {

constexpr size_t kSharedAlignment = 128;
constexpr size_t kMostShared = 48 << 10;  // bytes a block may have on every architecture without asking
// Shared memory starts as 0x7fc0dead: a NaN, or a huge integer, so that use before initialisation shows.
SIMT_UNSEEN inline void poison(void* memory, size_t bytes) {
  static const unsigned char pattern[4] = {0xad, 0xde, 0xc0, 0x7f};
  auto* p = static_cast<volatile unsigned char*>(memory);
  for (size_t i = 0; i < bytes; ++i) p[i] = pattern[i % 4];
}

SIMT_UNSEEN inline void* shared_array(const void* key, size_t bytes, const std::source_location& place) {
  Block& block = *current->block;
  for (SharedArray* a = block.shared; a != nullptr; a = a->next) {
    if (a->key == key) {
      return a->memory;
    }
  }
  if ((block.shared_bytes += bytes) > kMostShared)
    fail("shared memory: a block has more than 48 KiB", place.file_name(), place.line());
  const size_t rounded = (bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
  auto* a = static_cast<SharedArray*>(std::malloc(sizeof(SharedArray)));
  a->key = key;
  a->memory = std::aligned_alloc(kSharedAlignment, std::max(rounded, kSharedAlignment));
  a->bytes = rounded;
  poison(a->memory, bytes);
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(static_cast<char*>(a->memory) + bytes, rounded - bytes);
#endif
  a->next = block.shared;
  block.shared = a;
  if constexpr (kRaces) races.forget(a->memory, rounded);
  return a->memory;
}

}  // namespace simt
