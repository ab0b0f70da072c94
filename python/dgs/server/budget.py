# SPDX-License-Identifier: Apache-2.0
"""How much a pull sends down (DESIGN §4): what W workers changed since the last one, within a byte budget."""

from __future__ import annotations

import math

from torch import Tensor

from dgs_ext.wire import Codec

from ..layout import Layout

BUDGET = 4.0  # a pull's bytes in units of a push's


def predicted_bytes(layout: Layout, density: float, codec: Codec) -> float:
    """About how many bytes a frame of this density takes: values, and indices at their entropy."""
    total = 0.0
    for segment, whole, k in zip(layout.segments, layout.whole, layout.counts(density).tolist(), strict=True):
        p = k / segment.numel if segment.numel else 1.0
        bits = 0.0 if whole or p >= 1 else -(math.log2(p) + (1 - p) / p * math.log2(1 - p))
        total += k * (codec.width + bits / 8)
    return total


class Budget:
    """The counts of a pull, remembered per (active workers, density up, codecs). Used by all sessions' threads.

    Args:
        layout: the segments.
        density: a fixed density down; None: min(1, active · density up), cut to four times a push's bytes.
    """

    def __init__(self, layout: Layout, density: float | None) -> None:
        self._layout, self._density = layout, density
        self._known: dict[tuple[int, float, Codec, Codec], Tensor] = {}

    def counts(self, active: int, density_up: float, up: Codec, down: Codec) -> Tensor:
        """k of every segment for a pull, int64 [S]."""
        key = (active, density_up, up, down)
        counts = self._known.get(key)
        if counts is None:
            if len(self._known) > 256:  # a schedule that never repeats a density
                self._known.clear()
            counts = self._known[key] = self._layout.counts(self._density or self._within(*key))
        return counts

    def _within(self, active: int, density_up: float, up: Codec, down: Codec) -> float:
        wanted = min(1.0, active * density_up)
        budget = BUDGET * predicted_bytes(self._layout, density_up, up)
        if predicted_bytes(self._layout, wanted, down) <= budget:
            return wanted
        low, high = min(density_up, wanted), wanted
        for _ in range(20):
            middle = (low + high) / 2
            if predicted_bytes(self._layout, middle, down) <= budget:
                low = middle
            else:
                high = middle
        return low
