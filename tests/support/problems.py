# SPDX-License-Identifier: Apache-2.0
"""Two training problems in float64 numpy with gradients by hand: a convex one, and a small neural network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from oracle import Array


class Problem(ABC):
    """Tensors to train, and each worker's gradient with the noise of a minibatch.

    Args:
        workers: how many there are, each with data of its own.
        steps: exchanges in all.
        seed: of the data, of the minibatches and of the order in which the workers come.
    """

    shapes: ClassVar[dict[str, tuple[int, ...]]]

    def __init__(self, workers: int, steps: int, seed: int) -> None:
        self.workers = workers
        self.random = np.random.default_rng(seed)
        turns = np.repeat(np.arange(workers), -(-steps // workers))
        self.order = self.random.permutation(turns)
        self.start = self.first()

    def tensors(self) -> list[Array]:
        return [self.random.standard_normal(math.prod(s)) for s in self.shapes.values()]

    @abstractmethod
    def first(self) -> list[Array]:
        """The first weights, flat."""

    @abstractmethod
    def batch(self, worker: int) -> list[Array]:
        """What a step of `worker` sees."""

    @abstractmethod
    def gradient(self, worker: int, weights: Sequence[Array], batch: Sequence[Array]) -> list[Array]:
        """Of the loss on a batch, flat like `weights`."""

    @abstractmethod
    def loss(self, weights: Sequence[Array]) -> float:
        """Over all data and workers."""


class Quadratics(Problem):
    """½·c·(w - w_k)², another minimum w_k for each worker; a minibatch is noise on the gradient."""

    shapes: ClassVar = {"wide": (40, 60), "bias": (40,), "deep": (30, 9, 5)}

    def first(self) -> list[Array]:
        self.curvature = [np.abs(t) + 0.1 for t in self.tensors()]
        self.minima = [self.tensors() for _ in range(self.workers)]
        return self.tensors()

    def batch(self, worker: int) -> list[Array]:
        return self.tensors()

    def gradient(self, worker: int, weights: Sequence[Array], batch: Sequence[Array]) -> list[Array]:
        terms = zip(self.curvature, weights, self.minima[worker], batch, strict=True)
        return [c * (w - at) + 0.3 * noise for c, w, at, noise in terms]

    def loss(self, weights: Sequence[Array]) -> float:
        terms = (
            (c * (w - at) ** 2).sum() / 2
            for minimum in self.minima
            for c, w, at in zip(self.curvature, weights, minimum, strict=True)
        )
        return float(sum(terms)) / self.workers


class Network(Problem):
    """y = V·tanh(W·x + a) + b against another network's output, squared error, 16 examples in a minibatch."""

    shapes: ClassVar = {"W": (48, 24), "a": (48,), "V": (25, 48), "b": (25,)}

    def first(self) -> list[Array]:
        teacher = self._network(1.5)
        self.inputs = [self.random.standard_normal((24, 200)) for _ in range(self.workers)]
        self.outputs = [self._forward(teacher, x)[1] for x in self.inputs]
        return self._network(1.0)

    def _network(self, scale: float) -> list[Array]:
        w, a, v, b = self.tensors()
        return [scale * w / math.sqrt(24), 0.1 * a, scale * v / math.sqrt(48), 0.1 * b]

    @staticmethod
    def _forward(weights: Sequence[Array], x: Array) -> tuple[Array, Array]:
        w, a, v, b = weights
        hidden = np.tanh(w.reshape(48, 24) @ x + a[:, None])
        return hidden, v.reshape(25, 48) @ hidden + b[:, None]

    def batch(self, worker: int) -> list[Array]:
        chosen = self.random.integers(0, 200, 16)
        return [self.inputs[worker][:, chosen], self.outputs[worker][:, chosen]]

    def gradient(self, worker: int, weights: Sequence[Array], batch: Sequence[Array]) -> list[Array]:
        x, y = batch
        hidden, found = self._forward(weights, x)
        error = (found - y) / x.shape[1]
        below = (weights[2].reshape(25, 48).T @ error) * (1 - hidden**2)
        return [(below @ x.T).ravel(), below.sum(1), (error @ hidden.T).ravel(), error.sum(1)]

    def loss(self, weights: Sequence[Array]) -> float:
        pairs = zip(self.inputs, self.outputs, strict=True)
        return float(np.mean([((self._forward(weights, x)[1] - y) ** 2).mean() for x, y in pairs]))
