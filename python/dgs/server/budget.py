# SPDX-License-Identifier: Apache-2.0
"""How much a pull sends down, and in which codec (DESIGN §4): what changed since the last one, within a byte budget.

docs/codecs.md has the measurements behind the numbers and the choice here.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgs_ext.wire import Codec

from ..layout import Layout

# What a codec leaves behind of the values that it sends, as a part of their squared norm: measured, rounded up.
ROUNDED_OFF = {
    Codec.FLOAT32: 0.0,
    Codec.FLOAT16: 5e-8,
    Codec.BFLOAT16: 3e-6,
    Codec.INT8: 1e-4,
    Codec.LEVEL4: 0.01,
    Codec.LEVEL3: 0.05,
}


# Of sparse pulls: beyond a half a selection is no longer one sweep and takes six times as long (docs/kernels.md), and
# the whole segment soon takes no more bytes.
DENSEST = 0.499


def codecs_down(up: Codec, down: Codec | None) -> tuple[Codec, ...]:
    """The codecs that pulls may come in, widest first, when pushes come in `up` and `down` is the setting.

    Without one: that of the pushes and those of fewer bits, but none of fewer than three.
    """
    if down is not None:
        return (down,)
    narrower = (Codec.BFLOAT16, Codec.INT8, Codec.LEVEL4, Codec.LEVEL3)
    return up if up in ROUNDED_OFF else Codec.LEVEL3, *(c for c in narrower if c.width < up.width)


class _Sizes:
    """About how many bytes frames take: values, and indices at their entropy. All that are asked for at once."""

    def __init__(self, layout: Layout) -> None:
        self._numels = layout.offsets.diff().double()
        self._whole = torch.tensor(layout.whole)

    def __call__(self, densities: Tensor, widths: Tensor) -> Tensor:
        """Bytes, float64 [C], of frames of these densities and bytes for each value, float64 [C]."""
        n, density = self._numels, densities[:, None]
        k = (density * n - 1e-9 * n).ceil().clamp(min=1).minimum(n)  # as in layout.kept
        k = torch.where(self._whole | (density == 1), n, k)
        p = k / n
        bits = -(p.log2() + (1 - p) / p * (1 - p).log2())
        indices = torch.where(k < n, k * bits / 8, 0.0)
        return widths * k.sum(1) + indices.sum(1)


def predicted_bytes(layout: Layout, density: float, codec: Codec) -> float:
    """About how many bytes a frame of this density takes."""
    one = torch.ones(1, dtype=torch.float64)
    return float(_Sizes(layout)(density * one, codec.width * one))


@dataclass(frozen=True, slots=True)
class Plan:
    """A pull: k of every segment, int64 [S], and the codec of its values."""

    counts: Tensor
    codec: Codec


@dataclass(frozen=True, slots=True)
class _Choice:
    """The most that a pull in `codec` may send of every segment, int64 [S]."""

    codec: Codec
    most: Tensor

    def plan(self, unseen: Tensor) -> Plan:
        return Plan(torch.minimum(unseen, self.most), self.codec)

    def left(self, unseen: Tensor) -> float:
        """An estimate of the part of ‖θ - b‖² that such a pull leaves behind."""
        entries = int(unseen.sum())
        sent = int(torch.minimum(unseen, self.most).sum()) / entries if entries else 1.0
        dropped = 1 - math.sqrt(sent)  # the rest is the smaller part: docs/codecs.md
        return dropped + (1 - dropped) * ROUNDED_OFF.get(self.codec, 0.0)


class Budget:
    """Plans pulls, for all sessions of a server; their threads use it together.

    The density of a push counts to three digits: plans are remembered by it, and one that a schedule changes a
    little at every step has none to be made anew.

    Args:
        layout: the segments.
        density: a fixed density down; None: as many entries as others may have changed, within the budget.
        codec: of all pulls; None: of `codecs_down` the one that leaves the least behind.
        pushes: the budget, in units of a push's bytes.
    """

    def __init__(
        self, layout: Layout, density: float | None = None, codec: Codec | None = None, pushes: float = 4.0
    ) -> None:
        self.layout = layout
        self._density, self._codec, self._pushes = density, codec, pushes
        self._known: dict[tuple[float, Codec], list[_Choice]] = {}
        self._lock = threading.Lock()
        self._numels = layout.offsets.diff()
        self._sizes = _Sizes(layout)
        self.pushed = torch.zeros_like(
            self._numels
        )  # entries of each segment in all pushes; never written to

    def count(self, indices: Tensor | None) -> None:
        """Counts a push that was applied: its indices, ascending int64 [K], or None for one that is dense."""
        entries = self._numels if indices is None else torch.searchsorted(indices, self.layout.offsets).diff()
        with self._lock:
            self.pushed = self.pushed + entries

    def plan(self, unseen: Tensor, density_up: float, up: Codec) -> Plan:
        """The next pull of a worker that has not been sent `unseen` entries of each segment, int64 [S]."""
        choices = self._choices(density_up, up)
        if self._density is not None:
            return Plan(choices[0].most, choices[0].codec)
        first = choices[0]
        if len(choices) == 1 or bool((unseen <= first.most).all()):
            return first.plan(unseen)
        return min(choices, key=lambda choice: choice.left(unseen)).plan(unseen)

    def most(self, density_up: float, up: Codec) -> Tensor:
        """Of every segment the most entries that a pull may have, whatever its codec, int64 [S]."""
        return torch.stack([choice.most for choice in self._choices(density_up, up)]).amax(0)

    def _choices(self, density_up: float, up: Codec) -> list[_Choice]:
        key = (float(f"{density_up:.3g}"), up)
        found = self._known.get(key)
        if found is None:
            if len(self._known) > 256:  # a schedule of many densities
                self._known.clear()
            codecs = codecs_down(up, self._codec)
            densities = [self._density] * len(codecs) if self._density else self._most(*key, codecs)
            found = self._known[key] = [
                _Choice(codec, self.layout.counts(density))
                for codec, density in zip(codecs, densities, strict=True)
            ]
        return found

    def _most(self, least: float, up: Codec, codecs: Sequence[Codec]) -> list[float]:
        """For each codec the greatest density within the budget, and never below `least`, that of a push in `up`.

        It is 1, where that fits, or at most DENSEST.
        """
        widths = torch.tensor([codec.width for codec in codecs], dtype=torch.float64)
        low, all_of_it = torch.full_like(widths, least), torch.ones_like(widths)
        high = low.clamp(min=DENSEST)
        budget = self._pushes * self._sizes(low[:1], torch.full_like(low[:1], up.width))
        low = torch.where(self._sizes(high, widths) <= budget, high, low)
        whole = self._sizes(all_of_it, widths) <= budget
        for _ in range(20):
            middle = (low + high) / 2
            fits = self._sizes(middle, widths) <= budget
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return torch.where(whole, all_of_it, low).tolist()


class Unseen:
    """How many entries of each segment a worker has not been sent, at most. Its session's thread uses it.

    What a codec has rounded off counts as sent: it goes with a later pull, if it is large enough to be chosen.

    Args:
        budget: counts the pushes from now on.
        left: what it has not been sent already, int64 [S]; None: whatever the model holds.
    """

    def __init__(self, budget: Budget, left: Tensor | None = None) -> None:
        self._budget, self._numels = budget, budget.layout.offsets.diff()
        self._left, self._counted = self._numels if left is None else left, budget.pushed

    def entries(self) -> Tensor:
        """The number in each segment, int64 [S]."""
        pushed = self._budget.pushed
        self._left = torch.minimum(self._left + (pushed - self._counted), self._numels)
        self._counted = pushed
        return self._left

    def sent(self, asked: Tensor, nnz: Tensor, *, exact: bool) -> None:
        """A pull of at most `asked` entries has brought `nnz`, int64 [S]; if `exact` and fewer, there are no more."""
        left = (self._left - nnz).clamp(min=0)
        self._left = left.masked_fill(nnz < asked, 0) if exact else left
