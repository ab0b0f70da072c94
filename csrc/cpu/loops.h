// SPDX-License-Identifier: Apache-2.0
// The inner loops of the CPU ops, as a table of functions: one table for each instruction set that they are
// compiled for (portable.cpp, avx2.cpp, avx512.cpp), chosen at run time (capability.h). Everything else is
// compiled once. The tables compute the same bits. Free of torch.
#pragma once

#include <cstdint>

#include "common/block_codecs.h"
#include "common/formulas.h"
#include "common/segments.h"

namespace dgs::cpu {

constexpr uint32_t kInfinity = 0x7f800000u;  // the first magnitude that is not finite
constexpr uint32_t kNothing = 0x7fffffffu;   // a threshold that no finite value reaches
constexpr int64_t kSpareLanes = 16;          // vector code writes up to so many entries behind the last

// In models of so many elements results are `streamed`, past the caches: there they would not stay anyway.
constexpr int64_t kWorthStreaming = 1 << 22;

// What an op selects from.
enum class Kind : int32_t {
  kPlain,       // x
  kDifference,  // x - y
  kVelocity,    // u = x + lr * g; stored in x_out
  kDgc,         // u = m * x + g, stored in x_out; r = y + lr * u, selected from and stored in y_out
};

// One segment of it.
struct Operand {
  Kind kind = Kind::kPlain;
  const float* x = nullptr;  // [n], as the rest
  const float* y = nullptr;
  Gradient gradient = {};
  const float* weights = nullptr;
  float* x_out = nullptr;
  float* y_out = nullptr;  // kDifference: y, where what is sent is added to it
  float lr = 0, weight_decay = 0, momentum = 0, grad_scale = 1;
  bool nesterov = false;
  float keep = 0;       // kVelocity: the share of what is sent that leaves u
  bool masked = false;  // kDgc: u becomes 0 where something is sent
};

// Where the values that were selected from can be read again once everything is stored.
inline Operand stored(const Operand& o) {
  Operand again;
  again.kind = o.kind == Kind::kDifference ? Kind::kDifference : Kind::kPlain;
  again.x = o.kind == Kind::kVelocity ? o.x_out : o.kind == Kind::kDgc ? o.y_out : o.x;
  again.y = o.y;
  return again;
}

// Entries in ascending order: their values, and where they are relative to the beginning of a range.
struct Candidates {
  float* values;
  uint32_t* at;
};

// The magnitudes, at least 1, from which on elements are candidates, and are stored as what is left of them
// when they have been sent as they are (kVelocity and kDgc).
struct Reach {
  uint32_t low = kNothing;
  uint32_t take = kNothing;
};

struct Swept {
  int64_t count;  // candidates found
  uint32_t
      largest;  // the largest magnitude of what was selected from or stored; the range is finite if this is
};

// Where entries go that are kept: slots of a selection.
struct Room {
  int64_t base;      // flat index of the range's first element
  int64_t* indices;  // [size]
  float* values;     // [size]
  int64_t size;
};

struct Loops {
  const char* name;

  // Computes and stores elements begin .. end of a segment, and finds the candidates, [end - begin +
  // kSpareLanes].
  Swept (*sweep)(const Operand&, int64_t begin, int64_t end, const Reach&, bool streamed, Candidates);
  // The values of runs of `length` elements, out [runs * length]; stores nothing.
  void (*sample)(const Operand&, const int64_t* begins, int64_t runs, int64_t length, float* out);
  // Writes the first entries of magnitude >= cut, as many as there is room for; returns how many.
  int64_t (*keep)(const float* values, const uint32_t* at, int64_t n, uint32_t cut, const Room&);
  // Which of the values have magnitudes in [low, high], out [n + kSpareLanes]; returns how many.
  int64_t (*within)(const float* values, int64_t n, uint32_t low, uint32_t high, uint32_t* out);
  // q = lr * g, flushed, 0 without a gradient; whether all are finite.
  bool (*scale)(const Gradient&, const float* weights, float* q, int64_t begin, int64_t end, float lr,
                float weight_decay, bool streamed);
  void (*quantize)(float* values, int64_t n, Codec);
  // From the beginning of a block on.
  void (*quantize_blocks)(float* values, int64_t n, BlockCodec);
  void (*add)(float* x, const float* q, int64_t n, bool subtract);
  // The largest magnitude of x - y; all differences are finite if this is.
  uint32_t (*largest_difference)(const float* x, const float* y, int64_t n);
};

extern const Loops kPortable;
extern const Loops kAvx2;    // only on x86-64, as
extern const Loops kAvx512;  // this

}  // namespace dgs::cpu
