# SPDX-License-Identifier: Apache-2.0
"""The methods as their papers print them, in float64 numpy, one array per tensor. Nothing of the library is used."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CLOSE = (
    1e-4  # of the largest magnitude: entries that near to the k-th may change places by float32's rounding
)


def top(x: Array, k: int, found: Mask | None = None, rounding: float = 0.0) -> Mask:
    """Where the k largest magnitudes stand, without zeros.

    `found` is the choice of an implementation that rounds: it is taken, so that both go on from the same entries, but
    only if it differs by nothing but entries as large as the k-th, to CLOSE of the largest plus the `rounding` that
    x came with.
    """
    mask = np.zeros(x.shape, dtype=bool)
    mask[np.argsort(-np.abs(x), kind="stable")[:k]] = True
    mask &= x != 0
    if found is None or np.array_equal(mask, found):
        return mask
    assert found.sum() <= k, f"{found.sum()} entries instead of at most {k}"
    edge = np.sort(np.abs(x))[-k]  # 0 where there are fewer than k
    off = np.abs(np.abs(x[mask ^ found]) - edge).max()
    assert off <= CLOSE * np.abs(x).max() + rounding, (
        f"entries {off} away from the k-th magnitude {edge} were mistaken"
    )
    return found


@dataclass
class Method(ABC):
    """A worker's half: `step` takes one tensor's gradient and returns what is pushed of it, dense."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    state: dict[Any, Array] = field(default_factory=dict)

    def held(self, name: Any, like: Array) -> Array:
        return self.state.get(name, np.zeros_like(like))

    def prepare(self, grads: Sequence[Array]) -> list[Array]:
        return list(grads)

    @abstractmethod
    def step(self, number: int, grad: Array, weight: Array, k: int, found: Mask | None = None) -> Array: ...


class ASGD(Method):
    """Algorithm 1 of arXiv 1910.10929, the worker's lines."""

    def step(self, number: int, grad: Array, weight: Array, k: int, found: Mask | None = None) -> Array:
        return self.lr * (grad + self.weight_decay * weight)


class GradientDropping(Method):
    """arXiv 1704.05021, §3: the residual takes the gradient, the largest entries leave it."""

    def step(self, number: int, grad: Array, weight: Array, k: int, found: Mask | None = None) -> Array:
        r = self.held(number, grad) + self.lr * (grad + self.weight_decay * weight)
        sent = top(r, k, found)
        self.state[number] = np.where(sent, 0.0, r)
        return np.where(sent, r, 0.0)


class SAMomentum(Method):
    """Algorithm 3 of arXiv 1910.10929: u <- m·u + lr·g; what is not sent is divided by m."""

    def step(self, number: int, grad: Array, weight: Array, k: int, found: Mask | None = None) -> Array:
        u = self.momentum * self.held(number, grad) + self.lr * (grad + self.weight_decay * weight)
        sent = top(u, k, found)
        self.state[number] = np.where(sent, u, u / self.momentum)
        return np.where(sent, u, 0.0)


@dataclass
class DGC(Method):
    """Algorithm 4 of arXiv 1712.01887: local clipping, momentum correction, momentum factor masking.

    A tensor that is sent whole is plain momentum SGD.
    """

    clip: float | None = None
    workers: int = 1
    nesterov: bool = False

    def prepare(self, grads: Sequence[Array]) -> list[Array]:
        norm = math.sqrt(sum(float((g * g).sum()) for g in grads))
        limit = math.inf if self.clip is None else self.clip / math.sqrt(self.workers)
        return [g * (limit / norm) if norm > limit else g for g in grads]

    def step(self, number: int, grad: Array, weight: Array, k: int, found: Mask | None = None) -> Array:
        g = grad + self.weight_decay * weight
        u = self.held((number, "u"), g)
        if self.nesterov:
            u = self.momentum * (u + g)
            ahead = u + g
        else:
            u = ahead = self.momentum * u + g
        if k == g.size:
            self.state[number, "u"] = u
            return self.lr * ahead
        v = self.held((number, "v"), g) + ahead
        sent = top(v, k, found)
        self.state[number, "u"], self.state[number, "v"] = np.where(sent, 0.0, u), np.where(sent, 0.0, v)
        return np.where(sent, self.lr * v, 0.0)


class Server:
    """Algorithm 2 of arXiv 1910.10929: the parameters, and what each worker has of them."""

    def __init__(self, theta: Sequence[Array], workers: int, *, dense: bool) -> None:
        self.theta = [t.copy() for t in theta]
        self.held = [[t.copy() for t in theta] for _ in range(workers)]
        self.dense = dense

    def exchange(
        self, worker: int, push: Sequence[Array], counts: Sequence[int], found: Sequence[Mask] | None = None
    ) -> None:
        for theta, q in zip(self.theta, push, strict=True):
            theta -= q
        choices = [None] * len(counts) if found is None else found
        for theta, held, k, choice in zip(self.theta, self.held[worker], counts, choices, strict=True):
            difference = theta - held
            if self.dense:
                held += difference
                continue
            rounding = 1e-5 * float(np.abs(theta).max())  # of θ and b, however small their difference
            held += np.where(top(difference, k, choice, rounding), difference, 0.0)
