# SPDX-License-Identifier: Apache-2.0
"""What a method is: its state, its step, and what of it goes on the wire."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
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
        self._selection: Selection | None = None

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
    def failed(self) -> int | None:
        """The first segment whose last step was not finite, or None."""

    @abstractmethod
    def commit(self, sent: Selection | Tensor, hyper: Hyper) -> None:
        """Takes what was `sent` (the values of the last `step`, quantised) out of the state."""

    def buffers(self) -> dict[str, Tensor]:
        """The model-sized state, flat float32 [N] each, by name."""
        return {}

    def _selected_into(self, counts: Tensor) -> Selection:
        capacity = None if self._selection is None else self._selection.starts.diff()
        if self._selection is None or capacity is None or bool((capacity < counts).any()):
            self._selection = Selection.allocate(counts, self.device)
        return self._selection


class VelocityMethod(Method):
    """One flat buffer v, and u = v + lr·g in another that is swapped in by the commit."""

    state_name: ClassVar[str]

    def __init__(self, layout: Layout, device: torch.device) -> None:
        super().__init__(layout, device)
        self._state = torch.zeros(layout.numel, device=device)
        self._next = torch.zeros_like(self._state)

    @abstractmethod
    def keep(self, hyper: Hyper) -> Tensor:
        """The factor of q that leaves the state, float32 [S]."""

    def step(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> Selection:
        selection = self._selected_into(hyper.counts)
        ops.step_velocity(
            grads,
            weights,
            [self._state],
            [self._next],
            hyper.lr,
            hyper.weight_decay,
            self.layout.offsets,
            hyper.counts,
            selection,
        )
        return selection

    def failed(self) -> int | None:
        return None if self._selection is None else self._selection.failed()

    def commit(self, sent: Selection | Tensor, hyper: Hyper) -> None:
        assert isinstance(sent, Selection)
        self._state, self._next = self._next, self._state
        ops.apply_velocity_(
            [self._state],
            self.keep(hyper),
            self.layout.offsets,
            sent,
        )

    def buffers(self) -> dict[str, Tensor]:
        return {self.state_name: self._state}
