# SPDX-License-Identifier: Apache-2.0
"""Plain asynchronous SGD: dense both ways."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from dgs_ext import ops
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec

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
        if self._holds:
            self._sum(grads, weights, hyper)
            return self._ready(hyper)
        rates = hyper.lr, hyper.weight_decay, self.layout.offsets
        ops.step_dense(grads, weights, [self._update], *rates, self._selected.nnz)
        # As float32 it is ready.
        return self._update if hyper.codec == Codec.FLOAT32 else self._ready(hyper)

    def _sum(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> Tensor:
        """Makes the update what is held and this step's, to the last bit; returns the buffer of what is held.

        Nothing is flushed here: what is below 2^-126 alone may not be so in a sum.
        """
        if self._accumulated is None:
            self._accumulated = memory.zeros(self.layout.numel, self.device)
        elif not self._holds:
            self._accumulated.zero_()
        held, rates = self._accumulated, (hyper.lr, hyper.weight_decay, self.layout.offsets)
        ops.step_velocity(grads, weights, [held], [self._update], *rates, self._none, self._selected)
        return held

    def _ready(self, hyper: Hyper) -> Tensor:
        """The update as it goes on the wire."""
        ops.quantize_(self._update, hyper.codec)
        return self._update

    def accumulate(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> None:
        held = self._sum(grads, weights, hyper)
        if self.failed() is None:
            self._accumulated, self._update, self._holds = self._update, held, True

    def flush(self, hyper: Hyper) -> Tensor | None:
        if self._accumulated is None or not self._holds:
            return None
        self._selected.nnz.zero_()
        self._update.copy_(self._accumulated)
        return self._ready(hyper)

    def failed(self) -> int | None:
        return self._selected.failed()

    def commit(self) -> None:
        """Nothing is held back, so nothing is left."""
        self._holds = False

    def buffers(self) -> dict[str, Tensor]:
        return {} if self._accumulated is None or not self._holds else {self.state_name: self._accumulated}

    def reserve(self, names: Collection[str]) -> dict[str, Tensor]:
        if self.state_name in names and not self._holds:
            self._accumulated, self._holds = memory.zeros(self.layout.numel, self.device), True
        return self.buffers()
