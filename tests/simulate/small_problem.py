# SPDX-License-Identifier: Apache-2.0
"""A small problem with matrices large enough to be sent sparsely, and how the tests simulate it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dgs.simulate import Result, simulate

Batch = tuple[Tensor, Tensor]


def make_net() -> nn.Sequential:
    """Return a network with batch-norm buffers."""
    return nn.Sequential(
        nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 1)
    )


def loss(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return (model(x)[:, 0] - y).square().mean()


def batches(index: int) -> Iterator[Batch]:
    """Yield five random batches of a fixed function, from torch's own random numbers."""
    for _ in range(5):
        x = torch.randn(8, 16)
        yield x, x[:, :3].sum(1)


def run(**changes: Any) -> Result:
    """Simulate three workers for 24 versions, but for what is changed."""
    keywords: dict[str, Any] = {"workers": 3, "max_version": 24, "lr": 0.002, "momentum": 0.7, "mode": "dgs"}
    return simulate(make_net, loss, batches, **(keywords | {"density": 0.05} | changes))
