# SPDX-License-Identifier: Apache-2.0
"""Methods that push a selection of their state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from dgs_ext import ops
from dgs_ext.ops import Selection

from .. import memory
from ..layout import Layout
from ..room import Room
from .base import Hyper, Method

if TYPE_CHECKING:
    from ..config import Settings


class SparseMethod(Method):
    """A method that pushes a selection of its state; each buffer has a second, swapped in when the step lasts.

    Args:
        layout: the segments.
        device: where gradients and state live.
        sampled: select by a sampled threshold, with counts that float, instead of exactly.
    """

    def __init__(self, layout: Layout, device: torch.device, *, sampled: bool = False) -> None:
        super().__init__(layout, device)
        self.sampled = sampled
        self._room = Room(layout.offsets.diff(), device, sampled=sampled)
        self._last: Selection | None = None

    @classmethod
    def create(cls, layout: Layout, device: torch.device, settings: Settings) -> Self:
        return cls(layout, device, sampled=settings.sampled)

    @abstractmethod
    def compute(
        self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper, out: Selection
    ) -> None:
        """Selects hyper.counts entries of the next state, as `sampled` says, and as hyper.codec has them.

        Writes the next state, less these, beside the present one.
        """

    @abstractmethod
    def swap(self) -> None:
        """Makes the next state the present one."""

    def step(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> Selection:
        absent = torch.tensor([g.numel() == 0 for g in grads])
        if bool(absent.any()):  # left out of the step, as torch.optim.SGD does: what is held for them waits
            hyper = replace(hyper, counts=hyper.counts.masked_fill(absent, 0))
        return self._select(grads, weights, hyper)

    def _select(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> Selection:
        self._last = selection = self._room.of(hyper.counts)
        self.compute(grads, weights, hyper, selection)
        return selection

    def accumulate(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> None:
        none = torch.zeros_like(hyper.counts)
        self._last = Selection.allocate(none, self.device)
        self.compute(grads, weights, replace(hyper, counts=none), self._last)
        if self.failed() is None:
            self.swap()

    def flush(self, hyper: Hyper) -> Selection | None:
        everything = replace(hyper, counts=self.layout.offsets.diff())
        no_gradient = torch.empty(0, device=self.device)
        of_no_use = torch.empty(
            self.layout.numel, device=self.device
        )  # only a gradient is decayed by weights
        selection = self._select([no_gradient] * len(self.layout.segments), [of_no_use], everything)
        return None if selection.failed() is None and selection.total() == 0 else selection

    def failed(self) -> int | None:
        return None if self._last is None else self._last.failed()

    def commit(self) -> None:
        self.swap()


class VelocityMethod(SparseMethod):
    """One flat buffer v, and u = v + lr·g in another that is swapped in by the commit."""

    state_name: ClassVar[str]

    def __init__(self, layout: Layout, device: torch.device, *, sampled: bool = False) -> None:
        super().__init__(layout, device, sampled=sampled)
        self._state, self._next = (memory.zeros(layout.numel, device) for _ in range(2))

    @abstractmethod
    def keep(self, hyper: Hyper) -> Tensor:
        """The factor of q that leaves the state, float32 [S]."""

    def compute(
        self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper, out: Selection
    ) -> None:
        ops.push_velocity(
            grads,
            weights,
            [self._state],
            [self._next],
            self.keep(hyper),
            hyper.lr,
            hyper.weight_decay,
            self.layout.offsets,
            hyper.counts,
            out,
            hyper.codec,
            sampled=self.sampled,
        )

    def swap(self) -> None:
        self._state, self._next = self._next, self._state

    def buffers(self) -> dict[str, Tensor]:
        return {self.state_name: self._state}
