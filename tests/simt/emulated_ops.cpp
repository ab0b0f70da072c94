// SPDX-License-Identifier: Apache-2.0
// The CUDA ops as a C library, executed in the emulator: test_twins.py calls them with tensors' memory and
// compares with the plain-torch twins. Operands are one pointer per segment; each call returns an error's
// text, or null.
#include <algorithm>
#include <exception>
#include <string>

#include "cuda/apply.h"
#include "cuda/quantize.h"
#include "cuda/quantize_blocks.h"
#include "cuda/step.h"
#include "emulated_launcher.h"

namespace {

std::string error;
int tiles_per_chunk = 1;

template <class F>
const char* run(F f) {
  try {
    EmulatedLauncher launcher;
    f(launcher);
    return nullptr;
  } catch (const std::exception& e) {
    error = e.what();
    return error.c_str();
  }
}

// A layout, a selection and how to cut it, as Python gives them.
struct Frame {
  int64_t segments;
  const int64_t* offsets;
  const int64_t* counts;
  const int64_t* starts;
  int64_t* indices;
  float* values;
  int64_t* nnz;
  int64_t chunk;

  dgs::Segments layout() const { return {offsets, segments}; }
  dgs::Slots slots() const { return {indices, values, starts, nnz}; }
  dgs::Entries entries() const { return {indices, values, starts, nnz}; }
};

// The gradients' pointers and types, one per segment.
struct Grads {
  const void* const* data;
  const int32_t* type;
  dgs::Gradient operator[](int64_t s) const { return {data[s], static_cast<dgs::GradientType>(type[s])}; }
};

template <class Operand, class F>
std::vector<Operand> per_segment(const Frame& frame, F f) {
  std::vector<Operand> operands;
  for (int64_t s = 0; s < frame.segments; ++s) operands.push_back(f(s));
  return operands;
}

template <class Operand>
void select_from(EmulatedLauncher& launcher, const Frame& frame, const std::vector<Operand>& operands,
                 bool sampled) {
  dgs::cuda::select_top(launcher, frame.layout(), frame.counts, sampled, operands, frame.slots(),
                        tiles_per_chunk);
}

}  // namespace

extern "C" {

// Which schedule the next calls run under; 0 is round robin.
void emulate(uint64_t seed) {
  tiles_per_chunk = static_cast<int>(1 + seed % dgs::cuda::kTilesPerChunk);
  simt::config = {.seed = seed,
                  .resident_blocks = static_cast<unsigned>(1 + seed % 3),
                  .preempt_atomics = seed % 2 == 1,
                  .hold_back = seed % 2 == 1};
}

const char* emulated_select(const Frame* f, float* const* x, bool sampled) {
  return run([&](auto& launcher) {
    select_from(launcher, *f,
                per_segment<dgs::cuda::Values>(*f, [&](int64_t s) { return dgs::cuda::Values{x[s]}; }),
                sampled);
  });
}

const char* emulated_select_difference(const Frame* f, float* const* x, float* const* y, bool sampled) {
  using Operand = dgs::cuda::Difference;
  return run([&](auto& launcher) {
    select_from(launcher, *f, per_segment<Operand>(*f, [&](int64_t s) { return Operand{x[s], y[s]}; }),
                sampled);
  });
}

const char* emulated_step_velocity(const Frame* f, const Grads* grads, float* const* weights,
                                   float* const* velocity, float* const* velocity_out, const float* lr,
                                   const float* weight_decay, bool sampled) {
  using Operand = dgs::cuda::VelocityStep;
  return run([&](auto& launcher) {
    select_from(launcher, *f,
                per_segment<Operand>(*f,
                                     [&](int64_t s) {
                                       return Operand{(*grads)[s],     weights[s], velocity[s],
                                                      velocity_out[s], lr[s],      weight_decay[s]};
                                     }),
                sampled);
  });
}

const char* emulated_step_dgc(const Frame* f, const Grads* grads, float* const* weights,
                              float* const* velocity, float* const* residual, float* const* velocity_out,
                              float* const* residual_out, const float* lr, const float* weight_decay,
                              const float* momentum, double grad_scale, bool nesterov, bool sampled) {
  using Operand = dgs::cuda::DgcStep;
  return run([&](auto& launcher) {
    select_from(launcher, *f,
                per_segment<Operand>(*f,
                                     [&](int64_t s) {
                                       return Operand{(*grads)[s],     weights[s],
                                                      velocity[s],     residual[s],
                                                      velocity_out[s], residual_out[s],
                                                      lr[s],           weight_decay[s],
                                                      momentum[s],     static_cast<float>(grad_scale),
                                                      nesterov};
                                     }),
                sampled);
  });
}

const char* emulated_step_dense(const Frame* f, const Grads* grads, float* const* weights, float* const* out,
                                const float* lr, const float* weight_decay) {
  using Operand = dgs::cuda::DenseStep;
  return run([&](auto& launcher) {
    const auto operands = per_segment<Operand>(
        *f, [&](int64_t s) { return Operand{(*grads)[s], weights[s], out[s], lr[s], weight_decay[s]}; });
    dgs::cuda::step_dense(launcher, f->layout(), operands, f->nnz);
  });
}

const char* emulated_quantize_(float* values, int64_t n, int64_t codec) {
  return run(
      [&](auto& launcher) { dgs::cuda::quantize(launcher, values, n, static_cast<dgs::Codec>(codec)); });
}

const char* emulated_quantize_blocks_(const Frame* f, int64_t codec) {
  return run([&](auto& launcher) {
    dgs::cuda::quantize_blocks(launcher, f->layout(), f->values, f->starts, f->nnz,
                               static_cast<dgs::BlockCodec>(codec), std::max(f->chunk, dgs::kValueBlock));
  });
}

const char* emulated_apply_velocity_(const Frame* f, float* const* velocity, const float* keep) {
  using Operand = dgs::cuda::ApplyVelocity;
  return run([&](auto& launcher) {
    const auto operands = per_segment<Operand>(*f, [&](int64_t s) { return Operand{velocity[s], keep[s]}; });
    dgs::cuda::apply_selection(launcher, f->layout(), operands, f->entries(), f->chunk);
  });
}

const char* emulated_apply_dgc_(const Frame* f, float* const* velocity, float* const* residual) {
  using Operand = dgs::cuda::ApplyDgc;
  return run([&](auto& launcher) {
    const auto operands = per_segment<Operand>(
        *f, [&](int64_t s) { return Operand{velocity[s], residual[s], f->counts[s] < f->layout().size(s)}; });
    dgs::cuda::apply_selection(launcher, f->layout(), operands, f->entries(), f->chunk);
  });
}

const char* emulated_sparse_add_(const Frame* f, float* const* x, bool subtract) {
  using Operand = dgs::cuda::SparseAdd;
  return run([&](auto& launcher) {
    const auto operands = per_segment<Operand>(*f, [&](int64_t s) { return Operand{x[s]}; });
    dgs::cuda::sparse_add(launcher, f->layout(), operands, f->entries(), subtract, f->chunk);
  });
}

const char* emulated_dense_add_(const Frame* f, float* const* x, const float* q, bool subtract) {
  using Operand = dgs::cuda::DenseAdd;
  return run([&](auto& launcher) {
    const auto operands =
        per_segment<Operand>(*f, [&](int64_t s) { return Operand{x[s], q + f->offsets[s], subtract}; });
    dgs::cuda::dense_add(launcher, f->layout(), operands);
  });
}

const char* emulated_sparse_overflow(const Frame* f, float* const* x, int64_t* first) {
  using Operand = dgs::cuda::SparseMinuend;
  return run([&](auto& launcher) {
    const auto operands = per_segment<Operand>(*f, [&](int64_t s) { return Operand{x[s]}; });
    const dgs::cuda::Lowest lowest{reinterpret_cast<dgs::cuda::Count*>(first)};
    dgs::cuda::sparse_overflow(launcher, f->layout(), operands, f->entries(), lowest, f->chunk);
  });
}

const char* emulated_dense_overflow(const Frame* f, float* const* x, const float* q, int64_t* first) {
  using Operand = dgs::cuda::DenseDifference;
  return run([&](auto& launcher) {
    const dgs::cuda::Lowest lowest{reinterpret_cast<dgs::cuda::Count*>(first)};
    const auto operands = per_segment<Operand>(
        *f, [&](int64_t s) { return Operand{x[s], q + f->offsets[s], f->offsets[s], lowest}; });
    dgs::cuda::dense_overflow(launcher, f->layout(), operands, lowest);
  });
}

}  // extern "C"
