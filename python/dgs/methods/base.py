# SPDX-License-Identifier: Apache-2.0
"""What a method is: its state, its step, and what of it goes on the wire."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from dgs_ext import ops
from dgs_ext.ops import Selection

from ..layout import Layout

if TYPE_CHECKING:
    from ..config import Settings


@dataclass(frozen=True, slots=True)
class Hyper:
    """The step's hyper-parameters, per segment: float32 [S] each, counts int64 [S], all on the CPU."""

    lr: Tensor
    momentum: Tensor
    weight_decay: Tensor
    counts: Tensor
    workers: int = 1


class Method(ABC):
    """A method of DESIGN §3 that exchanges with a server.

    `step` computes into scratch buffers and changes nothing that lasts; `commit` makes it last once the server has
    acknowledged the push. A step without a commit has not happened.

    Args:
        layout: the segments.
        device: where gradients and state live.
    """

    name: ClassVar[str]
    dense: ClassVar[bool] = False
    uses: ClassVar[frozenset[str]] = frozenset({"momentum"})  # of momentum, nesterov and clip

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.layout, self.device = layout, device

    @classmethod
    def create(cls, layout: Layout, device: torch.device, settings: Settings) -> Method:
        """The method with those of the settings that concern it."""
        return cls(layout, device)

    @abstractmethod
    def step(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> Selection | Tensor:
        """Accumulates `grads` and returns what to push, unquantised: a Selection, or a dense tensor [N].

        Both are scratch, valid until the next `step`. An empty gradient stands for none.
        """

    @abstractmethod
    def accumulate(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> None:
        """A step that is not exchanged: the state takes `grads` at once, unless the step has `failed`."""

    @abstractmethod
    def flush(self, hyper: Hyper) -> Selection | Tensor | None:
        """The last push of a worker that leaves, as `step` returns one: all that is held; None if that is nothing.

        It is the push of a step without gradients at density 1, and `commit` takes it out of the state.
        """

    @abstractmethod
    def failed(self) -> int | None:
        """The first segment whose last `step`, `accumulate` or `flush` was not finite, or None."""

    @abstractmethod
    def commit(self, sent: Selection | Tensor, hyper: Hyper) -> None:
        """Takes what was `sent` (the values of the last `step`, quantised) out of the state."""

    def buffers(self) -> dict[str, Tensor]:
        """The model-sized state, flat float32 [N] each, by name: what state_dict saves, and loads in place."""
        return {}

    def reserve(self, names: Collection[str]) -> None:
        """Makes `buffers` hold those of `names` that this method knows, before a saved state is loaded."""


class SparseMethod(Method):
    """A method that pushes a selection of its state; each buffer has a second, swapped in when the step lasts."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        super().__init__(layout, device)
        self._selection: Selection | None = None
        self._last: Selection | None = None

    @abstractmethod
    def compute(
        self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper, out: Selection
    ) -> None:
        """Writes the next state beside the present one, and selects hyper.counts entries of it."""

    @abstractmethod
    def swap(self) -> None:
        """Makes the next state the present one."""

    @abstractmethod
    def take_out(self, sent: Selection, hyper: Hyper) -> None:
        """Takes what was sent out of the present state."""

    def step(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> Selection:
        self._last = selection = self._selected_into(hyper.counts)
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
        selection = self.step([no_gradient] * len(self.layout.segments), [of_no_use], everything)
        return None if selection.failed() is None and selection.total() == 0 else selection

    def failed(self) -> int | None:
        return None if self._last is None else self._last.failed()

    def commit(self, sent: Selection | Tensor, hyper: Hyper) -> None:
        assert isinstance(sent, Selection)
        self.swap()
        self.take_out(sent, hyper)

    def _selected_into(self, counts: Tensor) -> Selection:
        capacity = None if self._selection is None else self._selection.starts.diff()
        if self._selection is None or capacity is None or bool((capacity < counts).any()):
            self._selection = Selection.allocate(counts, self.device)
        return self._selection


class VelocityMethod(SparseMethod):
    """One flat buffer v, and u = v + lr·g in another that is swapped in by the commit."""

    state_name: ClassVar[str]

    def __init__(self, layout: Layout, device: torch.device) -> None:
        super().__init__(layout, device)
        self._state = torch.zeros(layout.numel, device=device)
        self._next = torch.zeros_like(self._state)

    @abstractmethod
    def keep(self, hyper: Hyper) -> Tensor:
        """The factor of q that leaves the state, float32 [S]."""

    def compute(
        self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper, out: Selection
    ) -> None:
        ops.step_velocity(
            grads,
            weights,
            [self._state],
            [self._next],
            hyper.lr,
            hyper.weight_decay,
            self.layout.offsets,
            hyper.counts,
            out,
        )

    def swap(self) -> None:
        self._state, self._next = self._next, self._state

    def take_out(self, sent: Selection, hyper: Hyper) -> None:
        ops.apply_velocity_([self._state], self.keep(hyper), self.layout.offsets, sent)

    def buffers(self) -> dict[str, Tensor]:
        return {self.state_name: self._state}
