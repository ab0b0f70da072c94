# SPDX-License-Identifier: Apache-2.0
"""50 steps of three workers in random order, against the papers' equations in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from fleet import Fleet, Vectors, set_grads, weights_of

STEPS, WORKERS = 50, 3
SHAPES = {"wide": (40, 60), "bias": (40,), "deep": (30, 9, 5)}
DENSITY, DENSITY_DOWN = 0.05, 0.2
LR, DECAY = 0.02, 0.01

CASES = {
    "dgs": (oracle.SAMomentum, {"momentum": 0.7}, {}),
    "dgs, m = 0.95": (oracle.SAMomentum, {"momentum": 0.95}, {}),
    "gd": (oracle.GradientDropping, {}, {}),
    "asgd": (oracle.ASGD, {}, {}),
    "dgc": (oracle.DGC, {"momentum": 0.9}, {}),
    "dgc, nesterov": (oracle.DGC, {"momentum": 0.6}, {"nesterov": True}),
    "dgc, clipped": (oracle.DGC, {"momentum": 0.5}, {"clip": 15.0, "workers": WORKERS}),
}


class Problem:
    """Noisy quadratics with another minimum for each worker."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.start = self._tensors()
        self.curvature = [np.abs(t) + 0.1 for t in self._tensors()]
        self.minima = [self._tensors() for _ in range(WORKERS)]
        self.order = self._random.permutation(np.repeat(np.arange(WORKERS), STEPS))

    def _tensors(self) -> list[oracle.Array]:
        return [self._random.standard_normal(math.prod(s)) for s in SHAPES.values()]

    def gradient(self, worker: int, weights: list[oracle.Array], noise: list[oracle.Array]) -> list[Any]:
        terms = zip(self.curvature, weights, self.minima[worker], noise, strict=True)
        return [c * (w - at) + 0.3 * n for c, w, at, n in terms]

    def noise(self) -> list[oracle.Array]:
        return self._tensors()


def split(flat: torch.Tensor) -> list[Any]:
    return [part.double().numpy() for part in flat.split([math.prod(s) for s in SHAPES.values()])]


def kept(density: float) -> list[int]:
    return [
        math.prod(s) if name == "bias" else math.ceil(round(density * math.prod(s), 6))
        for name, s in SHAPES.items()
    ]


def tensors(arrays: list[Any]) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(a).float().view(shape)
        for (name, shape), a in zip(SHAPES.items(), arrays, strict=True)
    }


@pytest.mark.parametrize("case", CASES)
def test_three_workers_in_random_order_follow_the_papers(case: str) -> None:
    kind, hyper, own = CASES[case]
    mode = case.partition(",")[0]
    settings = {"clip_workers" if name == "workers" else name: value for name, value in own.items()}
    problem = Problem(seed=7)
    server = oracle.Server(problem.start, WORKERS, dense=mode == "asgd")
    methods = [kind(lr=LR, weight_decay=DECAY, **hyper, **own) for _ in range(WORKERS)]
    models = [Vectors(tensors([np.zeros_like(a) for a in problem.start])) for _ in range(WORKERS)]
    rates = {"lr": LR, "weight_decay": DECAY, **hyper}
    with Fleet(
        Vectors(tensors(problem.start)), mode=mode, density=DENSITY, density_down=DENSITY_DOWN, **settings
    ) as fleet:
        workers = [fleet.join(model, **rates) for model in models]
        for step, k in enumerate(problem.order):
            noise = problem.noise()
            set_grads(models[k], tensors(problem.gradient(k, split(weights_of(workers[k])), noise)))
            workers[k].step()

            grads = methods[k].prepare(problem.gradient(k, server.held[k], noise))
            quadruples = zip(range(3), grads, server.held[k], kept(DENSITY), strict=True)
            push = [methods[k].step(i, g, w, n) for i, g, w, n in quadruples]
            server.exchange(k, push, kept(DENSITY_DOWN))

            pushed = fleet.taps[k].last_push(fleet.state.layout.numel, fleet.state.layout.fingerprint)
            for mine, theirs in zip(split(pushed), push, strict=True):
                assert np.array_equal(mine != 0, theirs != 0), f"step {step}: other entries were sent"
                np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
        for mine, theirs in zip(split(fleet.state.theta), server.theta, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
        for worker, held in zip(workers, server.held, strict=True):
            for mine, theirs in zip(split(weights_of(worker)), held, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
        assert fleet.state.version == STEPS * WORKERS
