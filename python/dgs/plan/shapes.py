# SPDX-License-Identifier: Apache-2.0
"""The tensors of models that are asked for by name, so that nothing has to be installed to count them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

from torch import nn

from ..errors import ConfigError
from ..layout import Layout, trainable

Shape = tuple[int, ...]

_MOST = 2**48  # the wire's own limit of one tensor
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def convolution(outer: int, inner: int, side: int) -> list[Shape]:
    """A convolution without bias and the batch norm after it."""
    return [(outer, inner, side, side), (outer,), (outer,)]


def resnet18_shapes(stem: int = 3, classes: int = 10) -> list[Shape]:
    """The 62 tensors of ResNet-18: for CIFAR-10, 11.17 M parameters; with a stem of 7 and 1000 classes ImageNet's."""
    shapes = convolution(64, 3, stem)
    before = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += convolution(width, before, 3) + convolution(width, width, 3)
            if block == 0 and before != width:
                shapes += convolution(width, before, 1)
            before = width
    return [*shapes, (classes, 512), (classes,)]


def resnet50_shapes() -> list[Shape]:
    """The 161 tensors of ResNet-50 for ImageNet, 25.56 M parameters."""
    shapes = convolution(64, 3, 7)
    before = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += convolution(width, before, 1) + convolution(width, width, 3)
            shapes += convolution(4 * width, width, 1)
            if block == 0:
                shapes += convolution(4 * width, before, 1)
            before = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def gpt2_shapes() -> list[Shape]:
    """The 148 tensors of GPT-2 small, 124.4 M parameters; the output layer is the embedding."""
    width = 768
    block: list[Shape] = [(width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)]
    block += [(width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50257, width), (1024, width), *(12 * block), (width,), (width,)]


KNOWN: dict[str, Callable[[], list[Shape]]] = {
    "resnet18": lambda: resnet18_shapes(7, 1000),
    "resnet18-cifar": resnet18_shapes,
    "resnet50": resnet50_shapes,
    "gpt2": gpt2_shapes,
}


def layout_of(model: str) -> Layout:
    """The layout of a model named on a command line.

    Args:
        model: one of KNOWN, a number of parameters like 124M (one matrix of so many), or module:callable, which
            returns an nn.Module.

    Raises:
        ConfigError: it is none of these. LayoutError: it has nothing to train.
    """
    if model in KNOWN:
        return Layout((str(i), shape) for i, shape in enumerate(KNOWN[model]()))
    count = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kmb]?)", model.lower())
    if count is not None:
        numel = round(float(count[1]) * _UNITS[count[2]])
        if not 1 <= numel <= _MOST:
            raise ConfigError(f"model must have 1 to {_MOST:,} parameters, got {model!r}")
        return Layout([("all", (numel, 1))])
    if ":" in model:
        return Layout((name, tuple(p.shape)) for name, p in trainable(_made(model)))
    raise ConfigError(
        f"model must be one of {', '.join(KNOWN)}, a number of parameters like 124M, or module:callable, "
        f"got {model!r}"
    )


def _made(text: str) -> nn.Module:
    module, _, name = text.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: no module's name
        raise ConfigError(f"model {text!r} cannot be found: {error}") from error
    model = make() if callable(make) else None
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model {text!r} must be a callable that takes nothing and returns an nn.Module, "
            f"got {type(make).__name__}"
        )
    return model
