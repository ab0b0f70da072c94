# SPDX-License-Identifier: Apache-2.0
"""The tensor shapes of the models that the benchmarks stand on: shapes alone, no arithmetic."""

from __future__ import annotations

from collections.abc import Callable

from dgs.layout import Layout

Shape = tuple[int, ...]


def _convolution(outer: int, inner: int, side: int) -> list[Shape]:
    """A convolution without bias and the batch norm after it."""
    return [(outer, inner, side, side), (outer,), (outer,)]


def resnet18_shapes() -> list[Shape]:
    """The 62 tensors of ResNet-18 for CIFAR-10, 11.17 M parameters."""
    shapes = _convolution(64, 3, 3)
    before = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += _convolution(width, before, 3) + _convolution(width, width, 3)
            if block == 0 and before != width:
                shapes += _convolution(width, before, 1)
            before = width
    return [*shapes, (10, 512), (10,)]


def resnet50_shapes() -> list[Shape]:
    """The 161 tensors of ResNet-50 for ImageNet, 25.56 M parameters."""
    shapes = _convolution(64, 3, 7)
    before = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += _convolution(width, before, 1) + _convolution(width, width, 3)
            shapes += _convolution(4 * width, width, 1)
            if block == 0:
                shapes += _convolution(4 * width, before, 1)
            before = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def gpt2_shapes() -> list[Shape]:
    """The 148 tensors of GPT-2 small, 124.4 M parameters; the output layer is the embedding."""
    width = 768
    block: list[Shape] = [(width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)]
    block += [(width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50257, width), (1024, width), *(12 * block), (width,), (width,)]


def tiny_shapes() -> list[Shape]:
    """A convolution, a matrix of two tasks and a bias: what the tests have the patience for."""
    return [*_convolution(32, 16, 3), (300, 300), (300,)]


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
