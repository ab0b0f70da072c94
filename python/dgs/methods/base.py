# SPDX-License-Identifier: Apache-2.0
"""What a method is: its state, its step, and what of it goes on the wire."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dgs_ext.ops import Selection
from dgs_ext.wire import Codec

from ..layout import Layout

if TYPE_CHECKING:
    from ..config import Settings


@dataclass(frozen=True, slots=True)
class Hyper:
    """The step's hyper-parameters, per segment: float32 [S] each, counts int64 [S], all on the CPU.

    lr and weight_decay are negative where the loss is maximized: lr·(∇ + λw) is then -lr·(∇ - λw), bit for bit.
    """

    lr: Tensor
    momentum: Tensor
    weight_decay: Tensor
    counts: Tensor
    workers: int = 1
    nesterov: bool = False
    codec: Codec = Codec.FLOAT32  # of the values that are pushed


class Strategy(ABC):
    """What a mode's name stands for, with the options it takes.

    An option that is given and not in `uses` is refused with the reason in `refuses`; without one it is ignored with
    a warning, so that a script may choose the mode and keep its momentum.
    """

    name: ClassVar[str]
    uses: ClassVar[frozenset[str]]
    refuses: ClassVar[Mapping[str, str]] = {}


class LocalMethod(Strategy):
    """A method for one process: it has no server, and moves the parameters itself."""

    @abstractmethod
    def step(self, groups: Sequence[dict[str, Any]], state: Any) -> None:
        """One step of every parameter that has a gradient; `state` is the optimizer's, by parameter."""


class Method(Strategy):
    """A method of DESIGN §3 that exchanges with a server.

    `step` computes what is to be pushed and, into scratch buffers, the state that is left once it has been; `commit`
    makes that last when the server has acknowledged the push. A step without a commit has not happened.

    Args:
        layout: the segments.
        device: where gradients and state live.
    """

    dense: ClassVar[bool] = False  # both ways
    refuses: ClassVar[Mapping[str, str]] = {
        "dampening": "the state takes the gradient whole, as all of it is sent in the end; scale lr instead",
        "nesterov": "it has no velocity to look ahead along",
        "decoupled_weight_decay": "w ← (1 - lr·λ)·w changes every weight at every step, which a sparse push "
        "cannot carry; weight_decay alone goes through the selection with the gradient",
        "clip": "it is dgc's, to clip/√workers; call torch.nn.utils.clip_grad_norm_ before step()",
    }

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.layout, self.device = layout, device
        self.numbers: dict[str, int] = {}  # what a saved state holds beside the buffers

    @classmethod
    def create(cls, layout: Layout, device: torch.device, settings: Settings) -> Method:
        """The method with those of the settings that concern it."""
        return cls(layout, device)

    @abstractmethod
    def step(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> Selection | Tensor:
        """Accumulates `grads` and returns what to push: a Selection, or a dense tensor [N].

        Its values are what hyper.codec can say. It is scratch, valid until the next `step`. An empty gradient stands
        for none: its segment is left out.
        """

    @abstractmethod
    def accumulate(self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper) -> None:
        """A step that is not exchanged: the state takes `grads` at once, unless the step has `failed`."""

    @abstractmethod
    def flush(self, hyper: Hyper) -> Selection | Tensor | None:
        """The last push of a worker that leaves, as `step` returns one: all that is held; None if that is nothing.

        It is the push of a step without gradients at density 1.
        """

    @abstractmethod
    def failed(self) -> int | None:
        """The first segment whose last `step`, `accumulate` or `flush` was not finite, or None."""

    @abstractmethod
    def commit(self) -> None:
        """What the last `step` or `flush` returned has been applied: the state is what it left."""

    def buffers(self) -> dict[str, Tensor]:
        """The model-sized state, flat float32 [N] each, by name: what state_dict saves, and loads in place."""
        return {}

    def reserve(self, names: Collection[str]) -> dict[str, Tensor]:
        """`buffers`, with those of `names` among them that the method makes only when it needs them."""
        return self.buffers()
