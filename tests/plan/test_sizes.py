# SPDX-License-Identifier: Apache-2.0
"""The bytes that a plan counts are those of real frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from dgs import config
from dgs.config import CODECS
from dgs.layout import Layout
from dgs.plan import sizes
from dgs.simulate import simulate

SHAPES = [(128, 64, 3, 3), (128,), (300, 700), (30, 20)]
STEPS = 12


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for i, shape in enumerate(SHAPES):
            self.register_parameter(f"p{i}", nn.Parameter(torch.zeros(shape)))

    def loss(self, generator: torch.Generator) -> Tensor:
        """A loss whose gradient is random."""
        return torch.stack(
            [(p * torch.randn(p.shape, generator=generator)).sum() for p in self.parameters()]
        ).sum()


def batches(index: int) -> Iterator[torch.Generator]:
    generator = torch.Generator().manual_seed(index)
    while True:
        yield generator


@pytest.mark.parametrize(
    ("workers", "density", "codec"),
    [(1, 0.01, "float32"), (4, 0.01, "float32"), (4, 0.002, "int8"), (3, 0.01, "level4")],
)
def test_a_sparse_exchange(workers: int, density: float, codec: str) -> None:
    result = simulate(Net, Net.loss, batches, workers=workers, max_version=STEPS * workers, lr=0.1,
                      mode="dgs", density=density, codec=codec)  # fmt: skip
    layout = Layout((f"p{i}", shape) for i, shape in enumerate(SHAPES))
    up = sizes.push(layout, density, CODECS[codec])
    down, _ = sizes.pull(layout, workers, density, CODECS[codec])
    assert up.bytes == pytest.approx(result.per_exchange("up"), rel=0.03, abs=150)
    # Down it may be less: what several workers changed is sent once, and the first replies have little to say.
    assert down.bytes == pytest.approx(result.per_exchange("down"), rel=0.15, abs=150)
    assert up.entries == int(layout.counts(density).sum())


@pytest.mark.parametrize("codec", ["float32", "bfloat16"])
def test_a_dense_exchange(codec: str) -> None:
    result = simulate(Net, Net.loss, batches, workers=2, max_version=6, lr=0.1, mode="asgd", codec=codec)
    layout = Layout((f"p{i}", shape) for i, shape in enumerate(SHAPES))
    assert sizes.dense(layout, CODECS[codec]).bytes == pytest.approx(result.per_exchange("up"), rel=1e-3)
    assert sizes.dense(layout, config.CODECS["float32"]).bytes == pytest.approx(
        result.per_exchange("down"), rel=1e-3
    )
