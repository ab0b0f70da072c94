# SPDX-License-Identifier: Apache-2.0
"""A worker of a simulation: a model, its optimizer and its batches, with random numbers of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..optimizer import GradientSGD
from ..schedules import DensitySchedule
from .host import Host
from .links import WorkerEnd

Rate = float | Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained, and how.

    Args:
        model: makes the model.
        loss: of the model on a batch, a scalar to differentiate.
        batches: those of the worker with that index, from 0; begun anew when they end.
        lr: the learning rate, or a function of the run's progress in [0, 1].
        momentum, weight_decay: as for GradientSGD.
        schedule: the density over the run.
        settings: the worker's keywords, see dgs.config.Settings.
    """

    model: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Any], Tensor]
    batches: Callable[[int], Iterable[Any]]
    lr: Rate
    momentum: float
    weight_decay: float
    schedule: DensitySchedule | None
    settings: dict[str, Any]


class Randomness:
    """A stream of torch's random numbers: those drawn inside `with` are its own, and no others are disturbed."""

    def __init__(self, seed: int) -> None:
        self._state = torch.Generator().manual_seed(seed).get_state()
        self._outer: list[Tensor] = []

    def __enter__(self) -> None:
        self._outer.append(torch.get_rng_state())
        torch.set_rng_state(self._state)

    def __exit__(self, *_: object) -> None:
        self._state = torch.get_rng_state()
        torch.set_rng_state(self._outer.pop())


class Node:
    """Owns its model, optimizer and link.

    Args:
        index: from 0; the rank is one more.
        task: what it trains.
        host: the server, or None for mode sgd.
        seed: of the whole simulation.
    """

    def __init__(self, index: int, task: Task, host: Host | None, seed: int) -> None:
        self.index, self._task, self._host = index, task, host
        self.draw = random.Random(f"{seed} {index}")
        self._own = Randomness(seed * 1_000_003 + 1 + index)
        self.end: WorkerEnd | None = None
        with self._own:
            self.model = task.model()
            self._batches = self._forever()
        alone = {"rank": 0, "world_size": None} if host is None else {"rank": index + 1}
        self.optimizer = GradientSGD(
            self.model.parameters(), task.lr if isinstance(task.lr, float | int) else task.lr(0.0), self.model,
            task.momentum, task.weight_decay, schedule=task.schedule, dial=self._dial, connect=False,
            **(task.settings | alone),
        )  # fmt: skip

    def _dial(self, timeout: timedelta) -> WorkerEnd:
        assert self._host is not None
        self.end = self._host.dial()
        return self.end

    def _forever(self) -> Iterator[Any]:
        while True:
            empty = True
            for batch in self._task.batches(self.index):
                empty = False
                yield batch
            if empty:
                raise ConfigError(f"batches({self.index}) held none: every worker needs some")

    def connect(self) -> int:
        """Joins at once; returns the bytes of the snapshot that came."""
        self.optimizer.connect()
        return 0 if self.end is None else self.end.bytes_down

    def gradient(self) -> float:
        """Takes the gradient of the next batch at the weights held now; returns the loss."""
        with self._own:
            self.optimizer.zero_grad()
            loss = self._task.loss(self.model, next(self._batches))
            loss.backward()
        return float(loss.detach())

    def post(self) -> list[Tensor]:
        """The first half of a step; returns the frames to be sent, none if the step sends nothing."""
        if callable(self._task.lr):
            for group in self.optimizer.param_groups:
                group["lr"] = self._task.lr(self.optimizer.progress)
        with self._timed() as sent:
            self.optimizer.post()
        return sent

    def settle(self) -> list[Tensor]:
        """The other half, once the reply is in the inbox; returns the frames to be sent: buffers, if they are due."""
        with self._timed() as sent:
            self.optimizer.settle()
        return sent

    @contextmanager
    def _timed(self) -> Iterator[list[Tensor]]:
        """Frames sent inside take time: they are collected, not delivered."""
        sent: list[Tensor] = []
        if self.end is not None:
            self.end.direct = False
        try:
            yield sent
        finally:
            if self.end is not None:  # another one, perhaps: a link that was lost has been replaced
                self.end.direct = True
                sent.extend(self.end.take())

    def show(self, model: nn.Module) -> None:
        """Copies this worker's parameters and buffers into `model`."""
        model.load_state_dict(self.model.state_dict())

    def take_in(self) -> None:
        """Takes in a reply that is there, before it leaves; buffers that are due are sent at once."""
        self.optimizer.settle()

    def leave(self) -> None:
        """The last push if it is set, buffers and goodbye, at once."""
        self.optimizer.close()

    def die(self) -> None:
        """The process is gone: its link is cut, and nothing is said to anyone."""
        if self.end is not None and self._host is not None:
            self.end.close()
            self._host.lose(self.index + 1, "it died in virtual time")
        self.optimizer.close("failed")
