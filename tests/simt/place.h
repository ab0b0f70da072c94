// SPDX-License-Identifier: Apache-2.0
// Where in the source, and which thread, in words: for the errors that end a launch.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <memory>
#include <source_location>
#include <string>

#include "race.h"

namespace simt {

inline std::string at(const char* file, unsigned line) {
  return std::string(file) + ":" + std::to_string(line);
}
inline std::string at(const std::source_location& place) { return at(place.file_name(), place.line()); }
inline std::string hexadecimal(uint32_t mask) {
  char digits[11];
  std::snprintf(digits, sizeof digits, "0x%08x", mask);
  return digits;
}
inline std::string position(const Thread& t) {
  return " [block " + std::to_string(t.block_index.x) + ", thread " + std::to_string(t.linear) + "]";
}

// The line of an address in the program, inlined functions from the inside out, as addr2line knows it.
inline std::string line_of(const void* code) {
  Dl_info info{};
  const auto call = reinterpret_cast<uintptr_t>(code) - 1;
  if (dladdr(code, &info) == 0) return "unknown place";
  char command[4096];
  std::snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%zx 2>&1", info.dli_fname,
                static_cast<size_t>(call - reinterpret_cast<uintptr_t>(info.dli_fbase)));
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command, "r"), pclose);
  std::string lines;
  for (char line[1024]; pipe && std::fgets(line, sizeof line, pipe.get()) != nullptr && lines.size() < 400;) {
    const std::string text(line);
    lines += (lines.empty() ? "" : " in ") + text.substr(0, text.find_first_of(" \n"));
  }
  return lines;
}

inline std::string describe(const Access& a) {
  static constexpr const char* kKinds[] = {"read", "write", "atomic"};
  return std::string(kKinds[static_cast<int>(a.kind)]) + " at " + line_of(a.code) + " [block " +
         std::to_string(a.thread / races.threads()) + ", thread " +
         std::to_string(a.thread % races.threads()) + "]";
}
inline std::string describe_race() {
  Access later{};
  const Access earlier = races.take(later);
  return "data race: nothing orders the " + describe(later) + " after the " + describe(earlier);
}

}  // namespace simt
