# SPDX-License-Identifier: Apache-2.0
"""The ops that the CPU does in one sweep, put together from those that they stand for: what a GPU runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FIRST_BLOCK_CODEC = 4


class Composed:
    """The three ops over `lib`, which has those that they are made of: torch.ops.dgs, or their twins."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib

    def _quantize(self, values: Tensor, offsets: Tensor, starts: Tensor, nnz: Tensor, codec: int) -> None:
        if codec >= FIRST_BLOCK_CODEC:
            self._lib.quantize_blocks_(values, offsets, starts, nnz, codec)
        else:
            self._lib.quantize_(values, codec)

    def push_velocity(
        self,
        grads: Sequence[Tensor],
        weights: Sequence[Tensor],
        velocity: Sequence[Tensor],
        velocity_out: Sequence[Tensor],
        keep: Tensor,
        lr: Tensor,
        weight_decay: Tensor,
        offsets: Tensor,
        counts: Tensor,
        starts: Tensor,
        sampled: bool,
        codec: int,
        indices: Tensor,
        values: Tensor,
        nnz: Tensor,
    ) -> None:
        """step_velocity, quantised, and taken out of velocity_out."""
        self._lib.step_velocity(
            grads, weights, velocity, velocity_out, lr, weight_decay, offsets, counts,
            starts, sampled, indices, values, nnz,
        )  # fmt: skip
        self._quantize(values, offsets, starts, nnz, codec)
        self._lib.apply_velocity_(velocity_out, keep, offsets, indices, values, starts, nnz)

    def push_dgc(
        self,
        grads: Sequence[Tensor],
        weights: Sequence[Tensor],
        velocity: Sequence[Tensor],
        residual: Sequence[Tensor],
        velocity_out: Sequence[Tensor],
        residual_out: Sequence[Tensor],
        lr: Tensor,
        weight_decay: Tensor,
        momentum: Tensor,
        grad_scale: float,
        nesterov: bool,
        offsets: Tensor,
        counts: Tensor,
        starts: Tensor,
        sampled: bool,
        codec: int,
        indices: Tensor,
        values: Tensor,
        nnz: Tensor,
    ) -> None:
        """step_dgc, quantised, and taken out of both."""
        self._lib.step_dgc(
            grads, weights, velocity, residual, velocity_out, residual_out, lr, weight_decay, momentum,
            grad_scale, nesterov, offsets, counts, starts, sampled, indices, values, nnz,
        )  # fmt: skip
        self._quantize(values, offsets, starts, nnz, codec)
        self._lib.apply_dgc_(velocity_out, residual_out, offsets, counts, indices, values, starts, nnz)

    def pull(
        self,
        x: Sequence[Tensor],
        mirror: Sequence[Tensor],
        offsets: Tensor,
        counts: Tensor,
        starts: Tensor,
        sampled: bool,
        codec: int,
        indices: Tensor,
        values: Tensor,
        nnz: Tensor,
    ) -> None:
        """select_difference, quantised, and added to the mirror."""
        self._lib.select_difference(x, mirror, offsets, counts, starts, sampled, indices, values, nnz)
        self._quantize(values, offsets, starts, nnz, codec)
        self._lib.sparse_add_(mirror, offsets, indices, values, starts, nnz, False)


def register() -> None:
    """Make them the CUDA kernels of the ops of their names."""
    composed = Composed(torch.ops.dgs)
    for op in (composed.push_velocity, composed.push_dgc, composed.pull):
        _library.impl(op.__name__, op, "CUDA")


# torch drops a library's kernels when the object goes away, so it lives as long as this module.
_library = torch.library.Library("dgs", "FRAGMENT")
