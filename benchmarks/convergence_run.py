# SPDX-License-Identifier: Apache-2.0
"""One simulated training run on CIFAR-10, described by a Plan and recorded as a line of JSON."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dgs.errors import DGSError
from dgs.methods import LOCAL_METHODS
from dgs.schedules import WarmUp
from dgs.simulate import LogNormal, Result, simulate

sys.path.append(str(Path(__file__).resolve().parents[1] / "example"))
from cifar10 import make_net
from cifar10_data import IMAGES, Images, augmented, load, normalised

CPU = torch.device("cpu")
HELD_OUT = 0.1  # of the training images: learning rates are chosen by them
_RAMP = 0.05  # of the run, in which the learning rate rises


@dataclass(frozen=True)
class Setup:
    """A method with its settings; `warm_up` is the part of the run in DGC's warm-up densities.

    `batches` times the batch size makes as many times fewer steps of the same images.
    """

    mode: str
    momentum: float = 0.0
    workers: int | None = None  # None: as many as the command says
    warm_up: float = 0.0
    batches: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """One run. `rate` is η/(1-m), so that a grid means the same for all; an epoch is a pass over `images` images."""

    name: str
    rate: float
    epochs: float
    seed: int
    batch_size: int
    workers: int
    images: int

    @property
    def key(self) -> str:
        """What a finished run is known by."""
        return " ".join(f"{k}={v}" for k, v in asdict(self).items())


class Cifar:
    """The images, and what `simulate` asks for: dealt out to workers, reshuffled in each pass, moved and mirrored.

    Args:
        root: the folder of the data.
        compiled: run the net through torch.compile.
        progress: called with the part of a pass that every batch is.
    """

    def __init__(self, root: Path, compiled: bool, progress: Callable[[float], object]) -> None:
        self._train, self.test, self._progress = load(root, train=True), load(root, train=False), progress
        self._forward = torch.compile(_forward) if compiled else _forward

    def split(self, plan: Plan) -> tuple[Images, Images]:
        """Images to train on, and those held out of them."""
        images, labels = self._train
        cut = len(labels) - round(HELD_OUT * len(labels))
        kept = min(plan.images, cut)
        return (images[:kept], labels[:kept]), (images[cut:], labels[cut:])

    def loss(self, net: nn.Module, batch: Images) -> Tensor:
        """Cross-entropy, in bfloat16 where autocast has it."""
        images, labels = batch
        self._progress(len(labels) / IMAGES)
        return self._forward(net, normalised(images, CPU), labels)

    @staticmethod
    @torch.no_grad()
    def evaluate(net: nn.Module, images: Images) -> Mapping[str, float]:
        """Loss and accuracy."""
        net.eval()
        right = loss = 0.0
        with torch.autocast("cpu", torch.bfloat16):
            for x, y in zip(*(t.split(500) for t in images), strict=True):
                scores = net(normalised(x.contiguous(memory_format=torch.channels_last), CPU)).float()
                right += int((scores.argmax(1) == y).sum())
                loss += float(cross_entropy(scores, y, reduction="sum"))
        return {"accuracy": right / len(images[1]), "loss": loss / len(images[1])}


def _forward(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return cross_entropy(net(images), labels)


def dealt(images: Images, size: int, index: int, workers: int, seed: int) -> Iterator[Images]:
    """Batches of worker `index` without end: in each pass all shuffle alike, and each takes its share."""
    count = len(images[1])
    for number in range(2**31):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + number))
        mine = order[index::workers]
        for rows in mine[: len(mine) // size * size].split(size):
            yield augmented(images[0][rows]), images[1][rows]


def carry_out(plan: Plan, setup: Setup, cifar: Cifar) -> dict[str, Any]:
    """Trains and returns the record: the plan, what was reached, and the curve."""
    workers = setup.workers or plan.workers
    training, held_out = cifar.split(plan)
    size = plan.batch_size * setup.batches
    pass_ = len(training[1]) // size
    steps = max(1, round(plan.epochs * pass_))
    lr = plan.rate * (1 - setup.momentum)
    warm_up = WarmUp(0.01, max(1, round(setup.warm_up * steps / 4))) if setup.warm_up else None
    record = asdict(plan) | {"key": plan.key, "lr": lr, "momentum": setup.momentum, "steps": steps}
    # As every run that is recorded: the server's choice of codecs came later.
    pulls = {} if setup.mode in LOCAL_METHODS else {"codec_down": "float32"}
    began = time.perf_counter()
    try:
        result = simulate(
            lambda: make_net("small"), cifar.loss,
            lambda index: dealt(training, size, index, workers, plan.seed),
            workers=workers, max_version=steps, lr=lambda at: lr * shape(at), momentum=setup.momentum,
            weight_decay=5e-4, schedule=warm_up, compute=LogNormal(1.0, 0.25), seed=plan.seed, every=pass_,
            evaluate=lambda net: cifar.evaluate(net, cifar.test), mode=setup.mode, buffers_every=25,
            **pulls | dict(setup.settings),
        )  # fmt: skip
    except DGSError as error:
        return record | {"validation": 0.1, "accuracy": 0.1, "status": f"{type(error).__name__}: {error}"}
    validation = cifar.evaluate(result.model, held_out)["accuracy"]
    minutes = (time.perf_counter() - began) / 60
    return record | {"validation": validation, "status": "ok", "minutes": minutes} | _reached(result)


def shape(progress: float) -> float:
    """The learning rate over the run: a short rise, then half a cosine down to 0."""
    return min(1.0, progress / _RAMP + 0.02) * (1 + math.cos(math.pi * progress)) / 2


def _reached(result: Result) -> dict[str, Any]:
    return {
        **result.points[-1].measured,
        "digest": result.digest,
        "up": result.per_exchange("up"),
        "down": result.per_exchange("down"),
        "staleness": result.mean_staleness,
        "curve": [
            [p.version, p.bytes_up, p.bytes_down, p.training_loss, p.measured["accuracy"]]
            for p in result.points
        ],
    }
