# SPDX-License-Identifier: Apache-2.0
"""How many bytes an exchange moves, and how many entries are in it: by the layout, without making any."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dgs_ext.wire import HEADER_BYTES, Codec

from ..layout import Layout
from ..server.budget import Budget

_META = 50  # bytes of JSON in a push or a reply
_STRIDE = 100  # pulls after which what is held back no longer grows, or does so for good


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


@functools.lru_cache(256)
def pull(
    layout: Layout,
    workers: int,
    density: float,
    codec: Codec,
    density_down: float | None = None,
    codec_down: Codec | None = None,
) -> tuple[Size, Codec]:
    """What the server sends back, and in which codec, once it is in its stride with so many workers.

    The server's own rule decides, told of as many entries as that many pushes change where no two change the same.

    Args:
        density, codec: of the pushes.
        density_down, codec_down: settings of the same name.
    """
    budget, numels = Budget(layout, density_down, codec_down), layout.offsets.diff()
    changed = workers * layout.counts(density)
    left = torch.zeros_like(numels)
    for _ in range(_STRIDE):
        unseen = torch.minimum(left + changed, numels)
        plan = budget.plan(unseen, density, codec)
        sent = torch.minimum(plan.counts, unseen)
        left = unseen - sent
    return sparse(layout, sent, plan.codec), plan.codec
