# SPDX-License-Identifier: Apache-2.0
"""A small problem to simulate: ten classes of noisy patterns, made from a seed, learnt in some passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = tuple[Tensor, Tensor]

CLASSES, FEATURES = 10, 64
_TRAINING, _TEST, _CENTRES, _NOISE = 4096, 1024, 4, 0.9


class Patterns:
    """Points around a few centres for each class, float32 [n, 64], and their classes int64 [n].

    Args:
        seed: of the centres and the points.
        batch_size: of the batches.
        workers: among whom the points are dealt out.
    """

    def __init__(self, seed: int, batch_size: int, workers: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(CLASSES * _CENTRES, FEATURES, generator=generator)
        which = torch.randint(len(centres), (_TRAINING + _TEST,), generator=generator)
        points = centres[which] + _NOISE * torch.randn(len(which), FEATURES, generator=generator)
        self._points, self._labels = points, which % CLASSES
        self._batch_size, self._workers = batch_size, workers

    @staticmethod
    def model() -> nn.Sequential:
        """A network of 85,002 parameters, nearly all in tensors large enough to be sent sparsely."""
        return nn.Sequential(
            nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES)
        )

    @staticmethod
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        points, labels = batch
        return cross_entropy(model(points), labels)

    def batches(self, index: int) -> Iterator[Batch]:
        """One pass over the points of a worker, in an order of torch's random numbers."""
        mine = torch.arange(index, _TRAINING, self._workers)
        for rows in mine[torch.randperm(len(mine))].split(self._batch_size):
            yield self._points[rows], self._labels[rows]

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Loss and accuracy on points that are not trained on."""
        scores, labels = model(self._points[_TRAINING:]), self._labels[_TRAINING:]
        accuracy = (scores.argmax(1) == labels).float().mean()
        return {"loss": float(cross_entropy(scores, labels)), "accuracy": float(accuracy)}
