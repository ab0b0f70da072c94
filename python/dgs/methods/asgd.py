# SPDX-License-Identifier: Apache-2.0
"""Plain asynchronous SGD: dense both ways."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from dgs_ext import ops
from dgs_ext.ops import Selection

from .. import memory
from ..layout import Layout
from .base import Hyper, Method


class ASGD(Method):
    """q = lr·g, dense; the model comes back dense.

    Steps that are not exchanged are summed in a buffer, made by the first of them, that goes with the next push.
    """

    name = "asgd"
    dense = True
    uses = frozenset({"decoupled_weight_decay"})  # the same as the coupled: no momentum takes the decay along
    state_name = "accumulated"

    def __init__(self, layout: Layout, device: torch.device) -> None:
        super().__init__(layout, device)
        self._update = memory.zeros(layout.numel, device)
        self._accumulated: Tensor | None = None
        self._holds = False  # whether anything is in it
        segments = len(layout.segments)
        self._none = torch.zeros(segments, dtype=torch.int64)
        self._selected = Selection.allocate(self._none, device)  # of nothing: its nnz says what is not finite

    def step(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> Tensor:
        offsets = self.layout.offsets
        rates = hyper.lr, hyper.weight_decay, offsets
        if self._accumulated is None or not self._holds:
            ops.step_dense(grads, weights, [self._update], *rates, self._selected.nnz)
        else:
            held = [self._accumulated]
            ops.step_velocity(grads, weights, held, [self._update], *rates, self._none, self._selected)
        return self._update

    def accumulate(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> None:
        self.step(grads, weights, hyper)
        if self.failed() is None:
            room = memory.zeros(self.layout.numel, self.device) if self._accumulated is None else self._accumulated
            self._accumulated, self._update, self._holds = self._update, room, True

    def flush(self, hyper: Hyper) -> Tensor | None:
        if self._accumulated is None or not self._holds:
            return None
        self._selected.nnz.zero_()
        return self._update.copy_(self._accumulated)

    def failed(self) -> int | None:
        return self._selected.failed()

    def commit(self, sent: Selection | Tensor, hyper: Hyper) -> None:
        """Nothing is held back, so nothing is left."""
        self._holds = False

    def buffers(self) -> dict[str, Tensor]:
        return {} if self._accumulated is None or not self._holds else {self.state_name: self._accumulated}

    def reserve(self, names: Collection[str]) -> dict[str, Tensor]:
        if self.state_name in names and not self._holds:
            self._accumulated, self._holds = memory.zeros(self.layout.numel, self.device), True
        return self.buffers()
