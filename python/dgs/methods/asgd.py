# SPDX-License-Identifier: Apache-2.0
"""Plain asynchronous SGD: dense both ways."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgs_ext import ops
from dgs_ext.ops import Selection

from ..layout import Layout
from .base import Hyper, Method


class ASGD(Method):
    """q = lr·g, dense; the model comes back dense."""

    name = "asgd"
    dense = True
    uses = frozenset()

    def __init__(self, layout: Layout, device: torch.device) -> None:
        super().__init__(layout, device)
        self._update = torch.zeros(layout.numel, device=device)
        self._status = torch.zeros(len(layout.segments), dtype=torch.int64, device=device)

    def step(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> Tensor:
        ops.step_dense(
            grads, weights, [self._update], hyper.lr, hyper.weight_decay, self.layout.offsets, self._status
        )
        return self._update

    def failed(self) -> int | None:
        bad = (self._status < 0).nonzero()
        return int(bad[0]) if bad.numel() else None

    def commit(self, sent: Selection | Tensor, hyper: Hyper) -> None:
        """Nothing is held back, so nothing is left."""
