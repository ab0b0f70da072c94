# SPDX-License-Identifier: Apache-2.0
"""How the benchmarks time and print: verified first, warmed up, medians, ratios within one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dgs.layout import Layout


def median_ms(function: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of `function` over `repeats` runs, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def copy_ms(numel: int, repeats: int) -> float:
    """Milliseconds of a copy of `numel` floats: the floor of anything that reads and writes the model once."""
    source, target = torch.randn(numel), torch.empty(numel)
    return median_ms(lambda: target.copy_(source), repeats)


def resnet18_shapes() -> list[tuple[int, ...]]:
    """The 62 tensors of ResNet-18 for CIFAR-10, 11.17 M parameters."""
    shapes: list[tuple[int, ...]] = [(64, 3, 3, 3), (64,), (64,)]
    before = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(width, before, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            if block == 0 and before != width:
                shapes += [(width, before, 1, 1), (width,), (width,)]
            before = width
    return [*shapes, (10, 512), (10,)]


def resnet18() -> Layout:
    """The layout of those tensors."""
    return Layout((str(i), shape) for i, shape in enumerate(resnet18_shapes()))


def heavy_tailed(numel: int, seed: int) -> Tensor:
    """Values whose magnitudes span octaves, as gradients' do, float32 [numel]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(numel, generator=generator) * torch.randn(numel, generator=generator).exp()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An aligned text table."""
    text = [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in [columns, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(columns))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in text
    ]
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:]])
