# SPDX-License-Identifier: Apache-2.0
"""200 steps of 1, 3 and 16 workers in random order, against the papers' equations in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from fleet import Fleet, Vectors, set_grads, weights_of
from oracle import Array, Mask
from problems import Network, Problem, Quadratics

DENSITY, DENSITY_DOWN = 0.05, 0.2
DECAY = 0.01

CASES = {
    "dgs": (oracle.SAMomentum, {"momentum": 0.7}, {}),
    "dgs, m = 0.95": (oracle.SAMomentum, {"momentum": 0.95}, {}),
    "gd": (oracle.GradientDropping, {}, {}),
    "asgd": (oracle.ASGD, {}, {}),
    "dgc": (oracle.DGC, {"momentum": 0.9}, {}),
    "dgc, nesterov": (oracle.DGC, {"momentum": 0.6}, {"nesterov": True}),
    "dgc, clipped": (oracle.DGC, {"momentum": 0.5}, {"clip": 5.0}),
}
PROBLEMS = {"convex": (Quadratics, 0.04), "neural": (Network, 0.06)}  # rates of m = 0


class Comparison:
    """A fleet and the oracle on the same problem, step by step."""

    def __init__(self, case: str, problem: Problem, lr: float) -> None:
        kind, hyper, own = CASES[case]
        self.problem, self.mode = problem, case.partition(",")[0]
        self.sizes = [math.prod(s) for s in problem.shapes.values()]
        oracle_own = own | {"workers": problem.workers} if "clip" in own else own
        self.server = oracle.Server(problem.start, problem.workers, dense=self.mode == "asgd")
        self.methods = [
            kind(lr=lr, weight_decay=DECAY, **hyper, **oracle_own) for _ in range(problem.workers)
        ]
        self.models = [Vectors(self.tensors(problem.start)) for _ in range(problem.workers)]
        settings = own | {"clip_workers": problem.workers} if "clip" in own else own
        self.fleet = Fleet(
            Vectors(self.tensors(problem.start)),
            mode=self.mode,
            density=DENSITY,
            density_down=DENSITY_DOWN,
            **settings,
        )
        self.rates = {"lr": lr, "weight_decay": DECAY, **hyper}
        self.other_choices = self.sent = 0

    def tensors(self, arrays: Sequence[Array]) -> dict[str, torch.Tensor]:
        named = zip(self.problem.shapes.items(), arrays, strict=True)
        return {name: torch.from_numpy(a).float().view(shape) for (name, shape), a in named}

    def split(self, flat: torch.Tensor) -> list[Any]:
        return [part.double().numpy() for part in flat.split(self.sizes)]

    def kept(self, density: float) -> list[int]:
        shapes = self.problem.shapes.values()
        return [math.prod(s) if len(s) < 2 else math.ceil(round(density * math.prod(s), 6)) for s in shapes]

    def run(self) -> None:
        with self.fleet as fleet:
            workers = [fleet.join(model, **self.rates) for model in self.models]
            for k in self.problem.order:
                batch = self.problem.batch(k)
                set_grads(
                    self.models[k],
                    self.tensors(self.problem.gradient(k, self.split(weights_of(workers[k])), batch)),
                )
                workers[k].step()
                self.follow(k, batch)
            for theirs, flat in [
                (self.server.theta, fleet.state.theta),
                *zip(self.server.held, map(weights_of, workers), strict=True),
            ]:
                for a, b in zip(self.split(flat), theirs, strict=True):
                    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * np.abs(b).max())
            assert fleet.state.version == len(self.problem.order)
        assert self.other_choices <= 1e-3 * self.sent, "more than rounding can explain"

    def follow(self, k: int, batch: Sequence[Array]) -> None:
        """The oracle's half of worker k's step, and what was sent beside what the oracle sends."""
        fleet, method = self.fleet, self.methods[k]
        layout = fleet.state.layout
        mine = self.split(fleet.taps[k].last_push(layout.numel, layout.fingerprint))
        held = self.server.held[k]
        grads = method.prepare(self.problem.gradient(k, held, batch))
        rows = zip(grads, held, self.kept(DENSITY), mine, strict=True)
        push = [method.step(i, g, w, n, found != 0) for i, (g, w, n, found) in enumerate(rows)]
        for a, b in zip(mine, push, strict=True):
            self.sent += int((a != 0).sum())
            self.other_choices += int(((a != 0) != (b != 0)).sum())
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())
        self.server.exchange(k, push, self.kept(DENSITY_DOWN), self.pulled())

    def pulled(self) -> list[Mask] | None:
        if self.mode == "asgd":
            return None
        indices = self.fleet.state.log[-1][4].numpy()
        flat = np.zeros(sum(self.sizes), dtype=bool)
        flat[indices] = True
        return np.split(flat, np.cumsum(self.sizes)[:-1])


def compare(case: str, problem: str, workers: int, steps: int) -> None:
    kind, lr = PROBLEMS[problem]
    made = kind(workers, steps, seed=7)
    comparison = Comparison(case, made, lr * (1 - CASES[case][1].get("momentum", 0.0)))
    comparison.run()
    assert made.loss(comparison.server.theta) < 0.9 * made.loss(made.start), "nothing was learned"


@pytest.mark.parametrize("workers", [1, 3, 16])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("case", CASES)
def test_two_hundred_steps_in_random_order_follow_the_papers(case: str, problem: str, workers: int) -> None:
    compare(case, problem, workers, steps=200)


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("case", CASES)
def test_two_hundred_steps_of_each_of_three_workers(case: str, problem: str) -> None:
    compare(case, problem, workers=3, steps=3 * 200)
