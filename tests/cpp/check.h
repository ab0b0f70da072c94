// SPDX-License-Identifier: Apache-2.0
// A test harness of two macros: TEST(name) { … } registers, CHECK(condition) reports and goes on. An
// executable runs all its tests, or those named on its command line, and fails if a check did or if nothing
// was checked.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <type_traits>

namespace check {

struct Registered {
  Registered(const char* name, void (*run)());
};

void passed();
void failed(const char* file, int line, const std::string& what);

template <class T>
auto printable(const T& value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return +value;  // a byte as a number
  } else {
    return value;
  }
}

template <class A, class B>
void equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return passed();
  std::ostringstream what;
  what << text << ": " << printable(a) << " and " << printable(b);
  failed(file, line, what.str());
}

}  // namespace check

#define TEST(name)                                                \
  static void name();                                             \
  static const check::Registered name##_registered(#name, &name); \
  static void name()

#define CHECK(condition) ((condition) ? check::passed() : check::failed(__FILE__, __LINE__, #condition))
#define CHECK_EQ(a, b) check::equal((a), (b), #a " == " #b, __FILE__, __LINE__)
