// SPDX-License-Identifier: Apache-2.0
// What is selected from. Free of torch. A source gives the values of a segment block by block (n <= kBlock),
// at `scratch` or wherever they lie:
//   peek(s, begin, n, scratch)          computes them and changes nothing
//   store(s, begin, n, scratch, finite) computes them and stores what the op stores, once for every element;
//   clears
//                                       `finite` when something else that is stored with them is not finite
//   load(s, begin, n, scratch)          gives them again, after store
#pragma once

#include <cstdint>

#include "common/formulas.h"

namespace dgs::cpu {

// x itself.
struct PlainSource {
  const float* const* x;  // [segments]

  const float* peek(int64_t s, int64_t begin, int64_t, float*) const { return x[s] + begin; }
  const float* store(int64_t s, int64_t begin, int64_t, float*, bool&) const { return x[s] + begin; }
  const float* load(int64_t s, int64_t begin, int64_t, float*) const { return x[s] + begin; }
};

// x - y, computed wherever it is needed and never stored.
struct DifferenceSource {
  const float* const* x;
  const float* const* y;

  const float* peek(int64_t s, int64_t begin, int64_t n, float* scratch) const {
    const float *a = x[s] + begin, *b = y[s] + begin;
    for (int64_t i = 0; i < n; ++i) scratch[i] = sub_rn(a[i], b[i]);
    return scratch;
  }
  const float* store(int64_t s, int64_t begin, int64_t n, float* scratch, bool&) const {
    return peek(s, begin, n, scratch);
  }
  const float* load(int64_t s, int64_t begin, int64_t n, float* scratch) const {
    return peek(s, begin, n, scratch);
  }
};

}  // namespace dgs::cpu
