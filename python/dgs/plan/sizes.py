# SPDX-License-Identifier: Apache-2.0
"""How many bytes an exchange moves, and how many entries are in it: by the layout, without making any."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from dgs_ext.wire import HEADER_BYTES, Codec

from ..layout import Layout
from ..server.budget import Budget

_META = 50  # bytes of JSON in a push or a reply


@dataclass(frozen=True, slots=True)
class Size:
    """What goes one way in an exchange: `bytes` of a frame, and `entries` in it."""

    bytes: float
    entries: int


def dense(layout: Layout, codec: Codec) -> Size:
    """A frame of all parameters."""
    return Size(HEADER_BYTES + _META + layout.numel * codec.width, layout.numel)


def sparse(layout: Layout, counts: Tensor, codec: Codec) -> Size:
    """A frame of so many entries of each segment, int64 [S]: values, and indices at their entropy.

    The coder comes within one per cent of the entropy (docs/wire_format.md). Entries are taken to lie anywhere in
    their segment and to be different from zero: what is clustered, or is zero, costs less.
    """
    size = 0.0
    for segment, k in zip(layout.segments, counts.tolist(), strict=True):
        size += k * (codec.width + _entropy(k / segment.numel if segment.numel else 1.0) / 8)
    return Size(HEADER_BYTES + _META + size, int(counts.sum()))


def _entropy(p: float) -> float:
    """Bits per index of a random subset of that density."""
    return 0.0 if not 0 < p < 1 else -(math.log2(p) + (1 - p) / p * math.log2(1 - p))


def push(layout: Layout, density: float, codec: Codec) -> Size:
    """What a sparse method's worker sends."""
    return sparse(layout, layout.counts(density), codec)


def pull(
    layout: Layout, workers: int, density: float, codecs: tuple[Codec, Codec], density_down: float | None
) -> Size:
    """What the server sends back when so many workers are active, by its own rule; `codecs`: up and down."""
    counts = Budget(layout, density_down).counts(workers, density, *codecs)
    return sparse(layout, counts, codecs[1])
