# SPDX-License-Identifier: Apache-2.0
"""The layout: which tensors there are, and where each lies in one flat float32 vector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dgs_ext import wire

from .errors import LayoutError


@dataclass(frozen=True, slots=True)
class Segment:
    """One tensor's range `offset : offset + numel` in the flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int
    numel: int


def kept(numel: int, density: float) -> int:
    """k = max(1, ceil(density·n - 1e-9·n)), the entries that a segment of `numel` sends at most (0 of none)."""
    if density == 1.0:  # of 10^9 entries the 10^-9 would be one
        return numel
    return min(numel, max(1, math.ceil(density * numel - 1e-9 * numel)))


class Layout:
    """The ordered segments of the trainable tensors.

    Args:
        tensors: (name, shape) in the order of `named_parameters()`, tied tensors once.
        buffers: (name, dtype, shape) of the buffers that travel beside them.
        frozen: the same of the parameters that nobody trains, which a worker receives once.
        dense_below: tensors of fewer elements than this are sent whole, as are those of fewer than two dimensions.
        compress_all: no tensor is sent whole, as in the papers.
    """

    def __init__(
        self,
        tensors: Iterable[tuple[str, Sequence[int]]],
        buffers: Iterable[tuple[str, str, Sequence[int]]] = (),
        frozen: Iterable[tuple[str, str, Sequence[int]]] = (),
        *,
        dense_below: int = 1024,
        compress_all: bool = False,
    ) -> None:
        segments, offset = [], 0
        for name, shape in tensors:
            numel = math.prod(shape)
            segments.append(Segment(name, tuple(shape), offset, numel))
            offset += numel
        if not segments:
            raise LayoutError("the model has no trainable parameters: nothing to exchange")
        self.segments = tuple(segments)
        self.buffers = tuple((name, dtype, tuple(shape)) for name, dtype, shape in buffers)
        self.frozen = tuple((name, dtype, tuple(shape)) for name, dtype, shape in frozen)
        self.numel = offset
        self.offsets = torch.tensor([s.offset for s in segments] + [offset], dtype=torch.int64)
        self.whole = tuple(
            not compress_all and (len(s.shape) < 2 or s.numel < dense_below) for s in self.segments
        )
        self.fingerprint = wire.fingerprint(self._text())

    def _text(self) -> bytes:
        lines = [f"{s.name}\t{','.join(map(str, s.shape))}" for s in self.segments]
        for name, dtype, shape in (*self.buffers, *self.frozen):
            lines.append(f"{name}\t{dtype}\t{','.join(map(str, shape))}")
        return "\n".join(lines).encode()

    def counts(self, densities: float | Sequence[float]) -> Tensor:
        """k of every segment, int64 [S], at one density for all or one for each; whole segments have k = n."""
        if isinstance(densities, (int, float)):
            densities = [densities] * len(self.segments)
        counts = [
            s.numel if whole else kept(s.numel, density)
            for s, whole, density in zip(self.segments, self.whole, densities, strict=True)
        ]
        return torch.tensor(counts, dtype=torch.int64)

    def segment_of(self, entry: int) -> Segment:
        """The segment that an entry of the flat vector lies in."""
        return self.segments[int(torch.searchsorted(self.offsets, entry, right=True)) - 1]

    def describe(self) -> list[tuple[str, list[int]]]:
        """(name, shape) of every segment, for the hello."""
        return [(s.name, list(s.shape)) for s in self.segments]

    def difference(self, other: Sequence[tuple[str, Sequence[int]]]) -> str:
        """What the first difference to another description is, in words; empty when there is none."""
        for i, segment in enumerate(self.segments):
            mine = f"{segment.name} {list(segment.shape)}"
            if i >= len(other):
                return f"tensor {i}: {mine} here, none there"
            theirs = f"{other[i][0]} {list(other[i][1])}"
            if mine != theirs:
                return f"tensor {i}: {mine} here, {theirs} there"
        extra = other[len(self.segments) :]
        return (
            f"tensor {len(self.segments)}: none here, {extra[0][0]} {list(extra[0][1])} there"
            if extra
            else ""
        )


def check_parameter(name: str, parameter: Tensor) -> None:
    """Raises LayoutError unless `parameter` is one that can be trained here."""
    if parameter.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise LayoutError(
            f"parameter {name} has dtype {parameter.dtype}; only float32, bfloat16 and float16 can be trained"
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel or DistributedDataParallel, whose names have no prefix."""
    while True:
        inner = getattr(model, "_orig_mod", None)  # torch.compile's; to import its class takes seconds
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def trainable(model: nn.Module, only: Iterable[Tensor] | None = None) -> list[tuple[str, nn.Parameter]]:
    """The trainable parameters of `model` by name, tied ones once; of these, if given, those in `only`."""
    chosen = None if only is None else {id(p) for p in only}
    found = [
        (name, p)
        for name, p in model.named_parameters()
        if p.requires_grad and (chosen is None or id(p) in chosen)
    ]
    for name, p in found:
        check_parameter(name, p)
    return found
