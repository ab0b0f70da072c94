# SPDX-License-Identifier: Apache-2.0
"""The op library `dgs`, typed: one function per op of csrc/ops.cpp, for CPU and CUDA tensors.

A model-sized operand (`x`, `grads`, `velocity`, ...) is a sequence of contiguous tensors: either one flat
tensor [N], or S tensors, one per segment, in layout order. Layout and rates are on the CPU whatever the
device: `offsets` int64 [S+1], `counts` int64 [S] (k per segment), `lr`, `weight_decay`, `momentum`, `keep`
float32 [S]. What an op computes is defined by its twin of the same name in dgs_ext/reference.py, bit for
bit.

A selection is exact unless `sampled`: then it takes every nonzero of at least the magnitude that about
counts[s] entries reach by a sample (every (n // 4096)-th entry of the segment's n), and where these are more
than its slots, the first ones. Of the m = 4096 .. 8192 entries sampled of a large segment, k·m/n are expected
above the threshold, so the count is k within a factor of 1 ± 4/sqrt(k·m/n) (99.99 %; sample and segment
independent): ± 63 % at most for 1 % density, ± 20 % for 10 %.

Every op raises RuntimeError when an operand has a wrong shape, dtype, device, layout or range, or shares
memory with one that is written; the message names op, argument, rule and value, and nothing has been
written. CUDA tensors on a build without CUDA raise dgs_ext.errors.BuildError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import dgs_ext  # noqa: F401  registers torch.ops.dgs
from dgs_ext._composed import FIRST_BLOCK_CODEC
from dgs_ext.selection import Selection

__all__ = [
    "Selection",
    "SelectionCounters",
    "apply_dgc_",
    "apply_velocity_",
    "dense_add_",
    "dense_overflow",
    "pull",
    "push_dgc",
    "push_velocity",
    "quantize_",
    "quantize_blocks_",
    "quantize_selection_",
    "select",
    "select_difference",
    "selection_counters",
    "sparse_add_",
    "sparse_overflow",
    "step_dense",
    "step_dgc",
    "step_velocity",
]

_ops = torch.ops.dgs


def _written(*operands: Sequence[Tensor]) -> None:
    """Tell autograd that these changed in place, as torch's own in-place ops do (`Tensor._version`)."""
    if not torch.compiler.is_compiling():  # the compiler knows it from the schema
        torch.autograd.graph.increment_version([t for operand in operands for t in operand])


def _selected(out: Selection, *operands: Sequence[Tensor]) -> None:
    """The same of a selection and what else its op has written; its counts set out for the host."""
    _written((out.indices, out.values, out.nnz), *operands)
    out.written()


def select(
    x: Sequence[Tensor], offsets: Tensor, counts: Tensor, out: Selection, *, sampled: bool = False
) -> None:
    """Select the counts[s] largest magnitudes of each segment of `x`: ties lowest first, zeros never.

    x: float32, N elements; out: room for counts[s] entries of segment s, or any room when sampled
    """
    _ops.select(x, offsets, counts, out.starts, sampled, out.indices, out.values, out.nnz)
    _selected(out)


def select_difference(
    x: Sequence[Tensor],
    y: Sequence[Tensor],
    offsets: Tensor,
    counts: Tensor,
    out: Selection,
    *,
    sampled: bool = False,
) -> None:
    """Select the counts[s] largest magnitudes of each segment of x - y: what a pull sends.

    x, y: float32, N elements; out: room for counts[s] entries of segment s, or any room when sampled
    """
    _ops.select_difference(x, y, offsets, counts, out.starts, sampled, out.indices, out.values, out.nnz)
    _selected(out)


def step_velocity(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    velocity: Sequence[Tensor],
    velocity_out: Sequence[Tensor],
    lr: Tensor,
    weight_decay: Tensor,
    offsets: Tensor,
    counts: Tensor,
    out: Selection,
    *,
    sampled: bool = False,
) -> None:
    """Write u = v + lr·(∇ + λw) and select the counts[s] largest of u: the step of `dgs` and `gd`.

    grads: float32, float16 or bfloat16, N elements; an empty tensor in a list: no gradient, u = v there
    weights, velocity, velocity_out: float32, N elements
    out: as in select; nnz[s] = -1: u is not finite, velocity_out is scratch
    """
    _ops.step_velocity(
        grads, weights, velocity, velocity_out, lr, weight_decay, offsets, counts,
        out.starts, sampled, out.indices, out.values, out.nnz,
    )  # fmt: skip
    _selected(out, velocity_out)


def step_dgc(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    velocity: Sequence[Tensor],
    residual: Sequence[Tensor],
    velocity_out: Sequence[Tensor],
    residual_out: Sequence[Tensor],
    lr: Tensor,
    weight_decay: Tensor,
    momentum: Tensor,
    offsets: Tensor,
    counts: Tensor,
    out: Selection,
    *,
    grad_scale: float = 1.0,
    nesterov: bool = False,
    sampled: bool = False,
) -> None:
    """Write u = m·u + g and r + lr·u, g = scale·∇ + λw, and select the largest of r: the step of `dgc`.

    grads: float32, float16 or bfloat16, N elements; an empty tensor in a list: no gradient, u, r stay there
    weights, velocity, residual, velocity_out, residual_out: float32, N elements
    grad_scale: what clipping leaves of the gradient, taken as float32
    out: as in select; nnz[s] = -1: u or r is not finite, the *_out are scratch
    """
    _ops.step_dgc(
        grads, weights, velocity, residual, velocity_out, residual_out, lr, weight_decay, momentum,
        grad_scale, nesterov, offsets, counts, out.starts, sampled, out.indices, out.values, out.nnz,
    )  # fmt: skip
    _selected(out, velocity_out, residual_out)


def push_velocity(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    velocity: Sequence[Tensor],
    velocity_out: Sequence[Tensor],
    keep: Tensor,
    lr: Tensor,
    weight_decay: Tensor,
    offsets: Tensor,
    counts: Tensor,
    out: Selection,
    codec: int,
    *,
    sampled: bool = False,
) -> None:
    """Do `step_velocity`, `quantize_selection_` and `apply_velocity_` to velocity_out, in one sweep on the CPU.

    keep: float32 [S], 1 - m; the rest as in step_velocity
    codec: as in quantize_ (1 to 3) and quantize_blocks_ (4 to 8)
    """
    _ops.push_velocity(
        grads, weights, velocity, velocity_out, keep, lr, weight_decay, offsets, counts,
        out.starts, sampled, codec, out.indices, out.values, out.nnz,
    )  # fmt: skip
    _selected(out, velocity_out)


def push_dgc(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    velocity: Sequence[Tensor],
    residual: Sequence[Tensor],
    velocity_out: Sequence[Tensor],
    residual_out: Sequence[Tensor],
    lr: Tensor,
    weight_decay: Tensor,
    momentum: Tensor,
    offsets: Tensor,
    counts: Tensor,
    out: Selection,
    codec: int,
    *,
    grad_scale: float = 1.0,
    nesterov: bool = False,
    sampled: bool = False,
) -> None:
    """Do `step_dgc`, `quantize_selection_` and `apply_dgc_` to the *_out buffers, in one sweep on the CPU.

    codec: as in push_velocity; the rest as in step_dgc
    """
    _ops.push_dgc(
        grads, weights, velocity, residual, velocity_out, residual_out, lr, weight_decay, momentum,
        grad_scale, nesterov, offsets, counts, out.starts, sampled, codec, out.indices, out.values, out.nnz,
    )  # fmt: skip
    _selected(out, velocity_out, residual_out)


def pull(
    x: Sequence[Tensor],
    mirror: Sequence[Tensor],
    offsets: Tensor,
    counts: Tensor,
    out: Selection,
    codec: int,
    *,
    sampled: bool = False,
) -> None:
    """Select of x - mirror, quantise, and add to the mirror: `select_difference` and two more, in one call.

    x, mirror: float32, N elements; codec: as in push_velocity
    out: as in select; nnz[s] = -1: x - mirror is not finite, and the mirror's segment as it was
    """
    _ops.pull(
        x, mirror, offsets, counts, out.starts, sampled, codec, out.indices, out.values, out.nnz
    )  # fmt: skip
    _selected(out, mirror)


def step_dense(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    out: Sequence[Tensor],
    lr: Tensor,
    weight_decay: Tensor,
    offsets: Tensor,
    nnz: Tensor,
) -> None:
    """Write q = lr·(∇ + λw): the step of `asgd`. Below 2^-126 becomes +0, as `quantize_` to float32 would have it.

    grads: float32, float16 or bfloat16, N elements; an empty tensor in a list: no gradient, q = 0 there
    weights, out: float32, N elements
    nnz: int64 [S] on the op's device: the segment's size, or -1 when a q is not finite
    """
    _ops.step_dense(grads, weights, out, lr, weight_decay, offsets, nnz)
    _written(out, (nnz,))


class SelectionCounters(NamedTuple):
    """What the CPU's selections of this process looked at: elements, and how many of them a second time."""

    elements: int
    read_again: int


def selection_counters(*, reset: bool = False) -> SelectionCounters:
    """Return the counts since the last reset, and begin anew if `reset`."""
    return SelectionCounters(*_ops.selection_counters(reset))


def quantize_(values: Tensor, codec: int) -> None:
    """Round `values` float32 [K] to what the codec can say: 1 float32, 2 float16, 3 bfloat16.

    To nearest even, saturated at the largest finite number; below 2^-126 in magnitude becomes +0.
    """
    _ops.quantize_(values, codec)
    _written((values,))


def quantize_blocks_(sent: Selection, offsets: Tensor, codec: int) -> None:
    """Round a selection to a codec with one scale per 128 slots: 4 int8, 5 level4, 6 level3, 7 level2, 8 sign.

    sent: the values in the slots [starts[s], starts[s] + nnz[s]) of each segment become what the codec can say

    A result has its value's sign and at most twice its magnitude; a value too small beside its block's others, or
    below 2^-126, becomes +0. Large ones are saturated; NaN stays.
    """
    _ops.quantize_blocks_(sent.values, offsets, sent.starts, sent.nnz, codec)
    _written((sent.values,))


def quantize_selection_(sent: Selection, offsets: Tensor, codec: int) -> None:
    """Round the values of `sent` to what the codec can say, by `quantize_` or `quantize_blocks_`."""
    if codec >= FIRST_BLOCK_CODEC:
        quantize_blocks_(sent, offsets, codec)
    else:
        quantize_(sent.values, codec)


def apply_velocity_(velocity: Sequence[Tensor], keep: Tensor, offsets: Tensor, sent: Selection) -> None:
    """Take what was sent out of the velocity: v -= keep·q on q's indices, keep = 1 - m.

    velocity: float32, N elements; keep: float32 [S]; sent: the entries of segment s lie in segment s

    Raises IndexError when an index lies outside its segment, and changes nothing (CPU only).
    """
    _ops.apply_velocity_(velocity, keep, offsets, sent.indices, sent.values, sent.starts, sent.nnz)
    _written(velocity)


def apply_dgc_(
    velocity: Sequence[Tensor], residual: Sequence[Tensor], offsets: Tensor, counts: Tensor, sent: Selection
) -> None:
    """Take what was sent out of the residual, r -= q, and mask its momentum, u = 0 where q is not 0.

    Segments sent whole (counts[s] is their size) keep their momentum.

    velocity, residual: float32, N elements; sent: the entries of segment s lie in segment s

    Raises IndexError when an index lies outside its segment, and changes nothing (CPU only).
    """
    _ops.apply_dgc_(velocity, residual, offsets, counts, sent.indices, sent.values, sent.starts, sent.nnz)
    _written(velocity, residual)


def sparse_add_(x: Sequence[Tensor], offsets: Tensor, sent: Selection, *, subtract: bool = False) -> None:
    """Add `sent` to `x`, or subtract it: parameters, mirrors and the server's θ. Below 2^-126 becomes +0.

    x: float32, N elements; sent: flat indices, each at most once, anywhere in the model

    Raises IndexError when an index lies outside [0, N), and changes nothing; CUDA drops such entries.
    """
    _ops.sparse_add_(x, offsets, sent.indices, sent.values, sent.starts, sent.nnz, subtract)
    _written(x)


def dense_add_(x: Sequence[Tensor], offsets: Tensor, values: Tensor, *, subtract: bool = False) -> None:
    """Add `values` float32 [N] to `x`, or subtract them. Results below 2^-126 in magnitude become +0.

    x: float32, N elements
    """
    _ops.dense_add_(x, offsets, values, subtract)
    _written(x)


def sparse_overflow(x: Sequence[Tensor], offsets: Tensor, sent: Selection, first: Tensor) -> None:
    """Write the lowest flat index at which x - q is not finite, or -1: what subtracting `sent` would overflow.

    x: float32, N elements; sent: as in sparse_add_; first: int64 [1] on the op's device

    Raises IndexError when an index lies outside [0, N); CUDA passes over such entries.
    """
    _ops.sparse_overflow(x, offsets, sent.indices, sent.values, sent.starts, sent.nnz, first)
    _written((first,))


def dense_overflow(x: Sequence[Tensor], offsets: Tensor, values: Tensor, first: Tensor) -> None:
    """Write the lowest flat index at which x - values is not finite, or -1.

    x: float32, N elements; values: float32 [N]; first: int64 [1] on the op's device
    """
    _ops.dense_overflow(x, offsets, values, first)
    _written((first,))


def _fake(*operands: object) -> None:
    """Every op only writes to its operands, so that under fake tensors there is nothing to make."""


for _name in __all__:
    if _name not in ("Selection", "SelectionCounters", "quantize_selection_", "selection_counters"):
        torch.library.register_fake(f"dgs::{_name}", _fake)
