# SPDX-License-Identifier: Apache-2.0
"""A training small enough to be run for thousands of steps in seconds: many workers on one least-squares problem.

Methods, server and codecs are the library's own; only frames and sessions are left out. A worker's weights are its
mirror, which they are bit for bit (tests/invariants).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dgs import Layout, config
from dgs.methods import METHODS, Hyper, Method
from dgs.server import ServerState
from dgs.server.budget import Budget, Plan, Unseen, predicted_bytes
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec

Tails = Literal["normal", "heavy"]
CPU = torch.device("cpu")
SHAPE = (80, 160)  # 1 % of it is one block of 128 values
_EXAMPLES, _BATCH, _LOOK_EVERY = 256, 8, 50
_DIVERGED = 1e6


class LeastSquares:
    """½·mean((x·w - y)²) over 256 examples of 12,800 features; a gradient is the sum over 8 of them.

    With heavy tails, features and their sizes are lognormal, and the labels' noise has Student's distribution with
    two degrees of freedom: gradients span many octaves.
    """

    def __init__(self, numel: int, tails: Tails, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        size = normal(numel).exp() if tails == "heavy" else torch.ones(numel)
        self._x = normal(_EXAMPLES, numel) * size / size.norm()
        noise = 0.1 * normal(_EXAMPLES)
        if tails == "heavy":
            self._x *= (0.7 * normal(_EXAMPLES, numel) - 0.49).exp()
            noise /= normal(_EXAMPLES, 2).square().mean(1).sqrt().clamp(min=0.05)
        self._y = self._x @ normal(numel) + noise
        self._draw = torch.Generator().manual_seed(seed + 1)

    def gradient(self, weights: Tensor) -> Tensor:
        rows = torch.randint(_EXAMPLES, (_BATCH,), generator=self._draw)
        x = self._x[rows]
        return x.t() @ (x @ weights - self._y[rows])

    def loss(self, weights: Tensor) -> float:
        return float((self._x @ weights - self._y).square().mean() / 2)


@dataclass(frozen=True)
class Outcome:
    """Means over the last fifth of a run.

    `held` is the norm of a worker's velocity or residual, `behind` that of θ - b, `pushes` the same in units of the
    last push, `bytes_down` a pull's predicted bytes in those of a push. All are infinite where the run has diverged.
    """

    loss: float
    held: float
    behind: float
    pushes: float
    bytes_down: float


Pulls = Callable[[Tensor], Plan]  # of what a worker has not seen


class Training:
    """Workers in random order, each with a method and a mirror of its own.

    Args:
        mode: a sparse method, or asgd.
        momentum: η is `lr`·(1 - momentum).
        codec: of the pushes.
        pulls: plans each pull; None: of 1 % for each worker in float32.
        slow: one worker comes so many times less often than the others.
    """

    def __init__(
        self, mode: str, momentum: float, codec: Codec, pulls: Pulls | None = None, *, tails: Tails = "heavy",
        workers: int = 16, density: float = 0.01, lr: float = 0.04, slow: float = 1.0, seed: int = 0,
    ) -> None:  # fmt: skip
        self.layout = Layout([("w", SHAPE)], compress_all=True)
        self._problem = LeastSquares(self.layout.numel, tails, seed)
        self.state = ServerState(self.layout, torch.zeros(self.layout.numel), device=CPU)
        snapshot = self.state.snapshot()
        self.mirrors = [self.state.mirror(snapshot) for _ in range(workers)]
        settings = config.resolve(None, {}, mode=mode)
        self.methods: list[Method] = [
            METHODS[mode].create(self.layout, CPU, settings) for _ in range(workers)
        ]
        one = torch.ones(1)
        counts = self.layout.counts(density)
        self._hyper = Hyper(lr * (1 - momentum) * one, momentum * one, 0 * one, counts, codec=codec)
        self._density = density
        wide = Plan(self.layout.counts(min(1.0, workers * density)), Codec.FLOAT32)
        self._pulls = pulls or (lambda unseen: wide)
        self._budget = Budget(self.layout)
        self._room = self.state.room()
        self._unseen = [Unseen(self._budget, torch.zeros_like(counts)) for _ in range(workers)]
        weights = one.new_ones(workers)
        weights[0] /= slow
        self._draw = torch.Generator().manual_seed(seed + 2)
        self._chances, self._push, self._sent = weights, 0.0, [0.0, 0.0]

    def step(self, k: int) -> None:
        """One exchange of worker k."""
        method, weights = self.methods[k], self.mirrors[k].weights
        update = method.step([self._problem.gradient(weights)], [weights], self._hyper)
        if isinstance(update, Selection):
            indices, values = update.compact()
            self.state.push_sparse(indices, values)
            self._budget.count(indices)
        else:
            values = update
            self.state.push_dense(values)
        method.commit()
        self._push = float(values.norm())
        if method.dense:
            weights.copy_(self.state.snapshot().theta)
        else:
            self._pull(k)

    def _pull(self, k: int) -> None:
        unseen = self._unseen[k]
        plan = self._pulls(unseen.entries())
        _, selection = self.state.pull(self.mirrors[k], plan.counts, plan.codec, self._room)
        unseen.sent(plan.counts, selection.nnz, exact=True)
        share = selection.total() / self.layout.numel
        if share:
            self._sent[0] += predicted_bytes(self.layout, share, plan.codec)
        self._sent[1] += predicted_bytes(self.layout, self._density, self._hyper.codec)

    def run(self, steps: int) -> Outcome:
        """So many exchanges of all workers together."""
        order = torch.multinomial(self._chances, steps, replacement=True, generator=self._draw).tolist()
        looks: list[tuple[float, float, float, float]] = []
        for t, k in enumerate(order, 1):
            self.step(k)
            if t > 0.8 * steps and t % _LOOK_EVERY == 0:
                looks.append(self._look())
            if t % 500 == 0 and not self._problem.loss(self.mirrors[k].weights) < _DIVERGED:
                return Outcome(*[math.inf] * 5)
        loss, held, behind, pushes = (sum(column) / len(looks) for column in zip(*looks, strict=True))
        bytes_down = self._sent[0] / self._sent[1] if self._sent[1] else 0.0
        return Outcome(loss, held, behind, pushes, bytes_down)

    def _look(self) -> tuple[float, float, float, float]:
        held = [float(flat.norm()) for m in self.methods for flat in list(m.buffers().values())[:1]]
        behind = [self.state.behind(mirror) for mirror in self.mirrors]
        loss = self._problem.loss(self.state.snapshot().theta)
        mean = sum(behind) / len(behind)
        return loss, sum(held) / max(1, len(held)), mean, mean / max(self._push, 1e-30)
