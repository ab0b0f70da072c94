// SPDX-License-Identifier: Apache-2.0
// Every op of the library `dgs`: the table of contents. Kernels are in cpu/ and cuda/, plain-torch twins that
// define the arithmetic in dgs_ext/reference.py. An op of which this file knows no kernel for a device is a
// file not compiled.
//
// A model-sized operand is a Tensor[]: either one flat tensor [N], or S tensors, one per segment, in layout
// order. Host metadata (always on the CPU): offsets int64 [S+1], counts int64 [S] (k per segment), lr,
// weight_decay, momentum and keep float32 [S]. A selection is (indices int64 [K], values float32 [K], starts
// int64 [S+1] on the CPU, nnz int64 [S]): segment s owns the slots starts[s] .. starts[s+1], of which the
// first nnz[s] are filled with flat indices in ascending order; nnz[s] = -1 says that the segment holds a
// value that is not finite.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(dgs, m) {
  // Selection: the counts[s] entries of segment s largest in magnitude, ties lowest index first, zeros never.
  // With `sampled`, here and in the steps: all entries of at least the magnitude that about counts[s] reach
  // by a sample of the segment; the count floats, and the first entries are taken when there are fewer slots.
  m.def(
      "select(Tensor[] x, Tensor offsets, Tensor counts, Tensor starts, bool sampled, "
      "Tensor(a!) indices, Tensor(b!) values, Tensor(c!) nnz) -> ()");
  // The same over x - y: what the server's pull sends.
  m.def(
      "select_difference(Tensor[] x, Tensor[] y, Tensor offsets, Tensor counts, Tensor starts, bool sampled, "
      "Tensor(a!) indices, Tensor(b!) values, Tensor(c!) nnz) -> ()");
  // Elements that the CPU's selections looked at since the last reset, and how many of them a second time.
  m.def("selection_counters(bool reset) -> (int, int)");
  // Which of the compiled instruction sets the CPU's ops use: the one in use, and a bit for each usable one.
  m.def("cpu_capability(int use) -> (int, int)");

  // The worker's steps: accumulate into the *_out buffers, select from the result. An empty gradient means
  // "none".
  m.def(
      "step_velocity(Tensor[] grads, Tensor[] weights, Tensor[] velocity, Tensor(a!)[] velocity_out, "
      "Tensor lr, Tensor weight_decay, Tensor offsets, Tensor counts, Tensor starts, bool sampled, "
      "Tensor(b!) indices, Tensor(c!) values, Tensor(d!) nnz) -> ()");
  m.def(
      "step_dgc(Tensor[] grads, Tensor[] weights, Tensor[] velocity, Tensor[] residual, "
      "Tensor(a!)[] velocity_out, Tensor(b!)[] residual_out, Tensor lr, Tensor weight_decay, Tensor "
      "momentum, "
      "float grad_scale, bool nesterov, Tensor offsets, Tensor counts, Tensor starts, bool sampled, "
      "Tensor(c!) indices, Tensor(d!) values, Tensor(e!) nnz) -> ()");
  // The same, and what is selected becomes what its codec can say and is taken out of the *_out buffers, as
  // by quantize_ or quantize_blocks_ (codec: theirs) and apply_*: the whole of a push, on the CPU in one
  // sweep.
  m.def(
      "push_velocity(Tensor[] grads, Tensor[] weights, Tensor[] velocity, Tensor(a!)[] velocity_out, "
      "Tensor keep, Tensor lr, Tensor weight_decay, Tensor offsets, Tensor counts, Tensor starts, "
      "bool sampled, int codec, Tensor(b!) indices, Tensor(c!) values, Tensor(d!) nnz) -> ()");
  m.def(
      "push_dgc(Tensor[] grads, Tensor[] weights, Tensor[] velocity, Tensor[] residual, "
      "Tensor(a!)[] velocity_out, Tensor(b!)[] residual_out, Tensor lr, Tensor weight_decay, Tensor "
      "momentum, "
      "float grad_scale, bool nesterov, Tensor offsets, Tensor counts, Tensor starts, bool sampled, "
      "int codec, Tensor(c!) indices, Tensor(d!) values, Tensor(e!) nnz) -> ()");
  // The same for a pull: select_difference, quantised and added to the mirror, which in segments whose
  // difference is not finite stays as it was.
  m.def(
      "pull(Tensor[] x, Tensor(a!)[] mirror, Tensor offsets, Tensor counts, Tensor starts, bool sampled, "
      "int codec, Tensor(b!) indices, Tensor(c!) values, Tensor(d!) nnz) -> ()");
  // The dense step's result is flushed, as float32 goes on the wire: it needs no quantize_ for that codec.
  m.def(
      "step_dense(Tensor[] grads, Tensor[] weights, Tensor(a!)[] out, Tensor lr, Tensor weight_decay, "
      "Tensor offsets, Tensor(b!) nnz) -> ()");

  // What a value becomes on the wire (codec: 1 float32, 2 float16, 3 bfloat16): rounded to even, saturated,
  // results below 2^-126 zero.
  m.def("quantize_(Tensor(a!) values, int codec) -> ()");
  // The same of a selection, to a codec with one scale per 128 slots of a segment (codec: 4 int8, 5 level4,
  // 6 level3, 7 level2, 8 sign): common/block_codecs.h.
  m.def("quantize_blocks_(Tensor(a!) values, Tensor offsets, Tensor starts, Tensor nnz, int codec) -> ()");

  // What was sent is taken out of the worker's state.
  m.def(
      "apply_velocity_(Tensor(a!)[] velocity, Tensor keep, Tensor offsets, "
      "Tensor indices, Tensor values, Tensor starts, Tensor nnz) -> ()");
  m.def(
      "apply_dgc_(Tensor(a!)[] velocity, Tensor(b!)[] residual, Tensor offsets, Tensor counts, "
      "Tensor indices, Tensor values, Tensor starts, Tensor nnz) -> ()");

  // Parameters, mirrors and the server's theta: x += q, or x -= q.
  m.def(
      "sparse_add_(Tensor(a!)[] x, Tensor offsets, Tensor indices, Tensor values, Tensor starts, Tensor nnz, "
      "bool subtract) -> ()");
  m.def("dense_add_(Tensor(a!)[] x, Tensor offsets, Tensor values, bool subtract) -> ()");
  // Before a push is applied: the lowest flat index at which x - q is not finite, or -1; first int64 [1].
  m.def(
      "sparse_overflow(Tensor[] x, Tensor offsets, Tensor indices, Tensor values, Tensor starts, Tensor nnz, "
      "Tensor(a!) first) -> ()");
  m.def("dense_overflow(Tensor[] x, Tensor offsets, Tensor values, Tensor(a!) first) -> ()");
}
