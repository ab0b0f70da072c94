# SPDX-License-Identifier: Apache-2.0
"""The operands of a model of a given layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dgs import memory
from dgs.layout import Layout
from dgs_ext.ops import Selection

LR, WEIGHT_DECAY, MOMENTUM = 0.1, 1e-4, 0.9


@dataclass(frozen=True, eq=False)
class Problem:
    """A model's operands. Gradients and weights are tensors of their own, as a model's are; the rest is flat.

    The server's pull takes `velocity` for θ and `residual` for the mirror.
    """

    grads: list[Tensor]
    weights: list[Tensor]
    velocity: list[Tensor]
    velocity_next: list[Tensor]
    residual: list[Tensor]
    residual_next: list[Tensor]
    offsets: Tensor
    counts: Tensor
    lr: Tensor
    weight_decay: Tensor
    momentum: Tensor
    out: Selection
    status: Tensor  # int64 [S], of the dense step

    @classmethod
    def of(
        cls,
        layout: Layout,
        grads: list[Tensor],
        weights: list[Tensor],
        density: float = 0.01,
        *,
        lr: float = LR,
        weight_decay: float = WEIGHT_DECAY,
        momentum: float = MOMENTUM,
    ) -> Problem:
        """Those of a model that begins to train: its state is zero."""
        segments, device, counts = len(layout.segments), grads[0].device, layout.counts(density)
        v, v_next, r, r_next = ([memory.zeros(layout.numel, device)] for _ in range(4))
        rates, decays, momenta = (torch.full((segments,), x) for x in (lr, weight_decay, momentum))
        return cls(
            grads, weights, v, v_next, r, r_next, layout.offsets, counts, rates, decays, momenta,
            Selection.allocate(counts, device), torch.zeros(segments, dtype=torch.int64, device=device),
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        return self.velocity[0].device

    @property
    def numel(self) -> int:
        return int(self.offsets[-1])

    def at(self, counts: Tensor) -> Problem:
        """The same operands with other counts."""
        return replace(self, counts=counts, out=Selection.allocate(counts, self.device))

    def segments(self, flat: list[Tensor]) -> list[Tensor]:
        """The flat segments of an operand, as views."""
        if len(flat) == len(self.counts):
            return [t.view(-1) for t in flat]
        return list(flat[0].split(self.offsets.diff().tolist()))

    def part(self, chosen: Sequence[int]) -> Problem:
        """A model of some of the segments; what is read is shared, what is written is copied."""

        def some(operand: list[Tensor], copy: bool = True) -> list[Tensor]:
            views = self.segments(operand)
            return [views[s].clone() if copy else views[s] for s in chosen]

        sizes = self.offsets.diff()[list(chosen)]
        counts = self.counts[list(chosen)]
        lr, decay, momentum = (x[list(chosen)] for x in (self.lr, self.weight_decay, self.momentum))
        return Problem(
            some(self.grads, False), some(self.weights, False), some(self.velocity, False),
            some(self.velocity_next), some(self.residual), some(self.residual_next),
            torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]), counts, lr, decay, momentum,
            Selection.allocate(counts, self.device), torch.zeros_like(self.status[: len(chosen)]),
        )  # fmt: skip

    def written(self) -> dict[str, list[Tensor]]:
        """What the steps may write."""
        return {
            "velocity_next": self.velocity_next,
            "residual": self.residual,
            "residual_next": self.residual_next,
            "nnz": [self.out.nnz, self.status],
            "indices and values": list(self.out.compact()),
        }
