# SPDX-License-Identifier: Apache-2.0
"""The tensor shapes of the models that the benchmarks stand on: shapes alone, no arithmetic."""

from __future__ import annotations

from collections.abc import Callable

from dgs.layout import Layout
from dgs.plan.shapes import Shape, convolution, gpt2_shapes, resnet18_shapes, resnet50_shapes


def tiny_shapes() -> list[Shape]:
    """A convolution, a matrix of two tasks and a bias: what the tests have the patience for."""
    return [*convolution(32, 16, 3), (300, 300), (300,)]


SHAPES: dict[str, Callable[[], list[Shape]]] = {
    "resnet18": resnet18_shapes,
    "resnet50": resnet50_shapes,
    "gpt2": gpt2_shapes,
    "million": lambda: [(1000, 1000)],
    "tiny": tiny_shapes,
}


def layout(name: str) -> Layout:
    """The layout of those tensors."""
    return Layout((str(i), shape) for i, shape in enumerate(SHAPES[name]()))
