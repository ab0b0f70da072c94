# SPDX-License-Identifier: Apache-2.0
"""What is timed: the ops, and the whole steps of the methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from harness import heavy_tailed
from operands import Problem
from torch import Tensor

from dgs.layout import Layout
from dgs_ext import ops
from dgs_ext.wire import Codec


class Library(Protocol):
    """dgs_ext.ops, or the twins under the same signatures (verify.py)."""

    def __getattr__(self, name: str) -> Callable[..., None]: ...


def select(p: Problem, lib: Library) -> None:
    lib.select(p.velocity, p.offsets, p.counts, p.out)


def step_velocity(p: Problem, lib: Library) -> None:
    lib.step_velocity(
        p.grads, p.weights, p.velocity, p.velocity_next, p.lr, p.weight_decay, p.offsets, p.counts, p.out
    )


def step_dgc(p: Problem, lib: Library) -> None:
    lib.step_dgc(
        p.grads, p.weights, p.velocity, p.residual, p.velocity_next, p.residual_next,
        p.lr, p.weight_decay, p.momentum, p.offsets, p.counts, p.out,
    )  # fmt: skip


def step_dense(p: Problem, lib: Library) -> None:
    lib.step_dense(p.grads, p.weights, p.velocity_next, p.lr, p.weight_decay, p.offsets, p.status)


def select_difference(p: Problem, lib: Library) -> None:
    lib.select_difference(p.velocity, p.residual, p.offsets, p.counts, p.out)


def push_velocity(p: Problem, lib: Library, keep: Tensor, sampled: bool = False) -> None:
    lib.push_velocity(
        p.grads, p.weights, p.velocity, p.velocity_next, keep, p.lr, p.weight_decay, p.offsets, p.counts,
        p.out, int(Codec.FLOAT32), sampled=sampled,
    )  # fmt: skip


def dgs(p: Problem, lib: Library) -> None:
    push_velocity(p, lib, 1 - p.momentum)


def gd(p: Problem, lib: Library) -> None:
    push_velocity(p, lib, torch.ones_like(p.momentum))


def dgc(p: Problem, lib: Library) -> None:
    lib.push_dgc(
        p.grads, p.weights, p.velocity, p.residual, p.velocity_next, p.residual_next, p.lr, p.weight_decay,
        p.momentum, p.offsets, p.counts, p.out, int(Codec.FLOAT32),
    )  # fmt: skip


def pull(p: Problem, lib: Library) -> None:
    lib.pull(p.velocity, p.residual, p.offsets, p.counts, p.out, int(Codec.FLOAT32))


def undo_pull(p: Problem) -> None:
    """The mirror as it was, to rounding: else each pull would find less to send."""
    ops.sparse_add_(p.residual, p.offsets, p.out, subtract=True)
    p.out.nnz.zero_()


def sampled(p: Problem, lib: Library) -> None:
    """The step of dgs with a threshold from a sample for all of its selection: the count floats."""
    push_velocity(p, lib, 1 - p.momentum, sampled=True)


def quantize(p: Problem, lib: Library) -> None:
    lib.quantize_(p.out.values, int(Codec.BFLOAT16))


def quantize_blocks(codec: Codec) -> Callable[[Problem, Library], None]:
    """One of the codecs with a scale per block."""

    def run(p: Problem, lib: Library) -> None:
        lib.quantize_blocks_(p.out, p.offsets, int(codec))

    return run


def apply_velocity(p: Problem, lib: Library) -> None:
    lib.apply_velocity_(p.velocity_next, 1 - p.momentum, p.offsets, p.out)


def apply_dgc(p: Problem, lib: Library) -> None:
    lib.apply_dgc_(p.velocity_next, p.residual_next, p.offsets, p.counts, p.out)


def sparse_add(p: Problem, lib: Library) -> None:
    lib.sparse_add_(p.velocity_next, p.offsets, p.out)


def flat(operand: list[Tensor]) -> Tensor:
    """All of an operand as one vector, without a copy if it is one."""
    return operand[0] if len(operand) == 1 else torch.cat(operand)


def dense_add(p: Problem, lib: Library) -> None:
    lib.dense_add_(p.velocity_next, p.offsets, flat(p.velocity))


def sparse_overflow(p: Problem, lib: Library) -> None:
    """What a server looks at before it applies a push; nothing overflows."""
    lib.sparse_overflow(p.velocity, p.offsets, p.out, p.status[:1])


def dense_overflow(p: Problem, lib: Library) -> None:
    lib.dense_overflow(p.velocity, p.offsets, flat(p.residual), p.status[:1])


@dataclass(frozen=True)
class Step:
    """A row of the table.

    floor: names its streams (floors.py)
    width: their bytes per parameter, or per entry where `entries`
    given: runs once before, so that there is a selection to work on
    before: runs before each time, untimed
    sparse: depends on the density
    """

    run: Callable[[Problem, Any], None]
    floor: str
    width: int
    before: Callable[[Problem], None] | None = None
    given: Callable[[Problem, Any], None] | None = None
    sparse: bool = True
    entries: bool = False

    def bytes(self, p: Problem) -> int:
        """What it has to move, at least, in the problem at hand."""
        return self.width * (p.out.values.numel() if self.entries else p.numel)


STEPS = {
    "dgs": Step(dgs, "velocity", 16),
    "gd": Step(gd, "velocity", 16),
    "dgc": Step(dgc, "dgc", 24),
    "pull": Step(pull, "pull", 8, undo_pull),
    "asgd": Step(step_dense, "dense", 12, sparse=False),
    "select": Step(select, "read", 4),
    "select_difference": Step(select_difference, "read2", 8),
    "step_velocity": Step(step_velocity, "velocity", 16),
    "step_dgc": Step(step_dgc, "dgc", 24),
    "step_dense": Step(step_dense, "dense", 12, sparse=False),
    "dgs, sampled": Step(sampled, "velocity", 16),
    "quantize_": Step(quantize, "values", 8, given=select, entries=True),
    "quantize_blocks_, int8": Step(quantize_blocks(Codec.INT8), "values", 8, given=select, entries=True),
    "quantize_blocks_, level4": Step(quantize_blocks(Codec.LEVEL4), "values", 8, given=select, entries=True),
    "quantize_blocks_, sign": Step(quantize_blocks(Codec.SIGN), "values", 8, given=select, entries=True),
    "apply_velocity_": Step(apply_velocity, "scatter", 20, given=select, entries=True),
    "apply_dgc_": Step(apply_dgc, "scatter2", 28, given=select, entries=True),
    "sparse_add_": Step(sparse_add, "scatter", 20, given=select, entries=True),
    "dense_add_": Step(dense_add, "add", 12, sparse=False),
    "sparse_overflow": Step(sparse_overflow, "gather", 16, given=select, entries=True),
    "dense_overflow": Step(dense_overflow, "read2", 8, sparse=False),
}


def under_way(layout: Layout, device: torch.device) -> Problem:
    """Operands as training leaves them: heavy-tailed gradients, and a state that three steps have been taken from."""
    grads, weights = (
        [heavy_tailed(s.numel, seed + i, device).view(s.shape) for i, s in enumerate(layout.segments)]
        for seed in (1000, 2000)
    )
    p = Problem.of(layout, grads, weights)
    for state, seed in ((p.velocity, 1), (p.residual, 2)):
        state[0].copy_(heavy_tailed(layout.numel, seed, device))
    for _ in range(3):
        dgc(p, ops)
        p.residual[0].copy_(p.residual_next[0])
        dgs(p, ops)
        p.velocity[0].copy_(p.velocity_next[0])
    return p
