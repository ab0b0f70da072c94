# SPDX-License-Identifier: Apache-2.0
"""What the ops that do several others' work stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

FIRST_BLOCK_CODEC = 4


class Composed:
    """push_velocity, push_dgc and pull over `lib`, which has the ops that they are made of: the twins."""

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
