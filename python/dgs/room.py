# SPDX-License-Identifier: Apache-2.0
"""Room for the entries of a selection, which a push and a pull keep from one step to the next."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dgs_ext.ops import Selection

_SAMPLE = 4096  # the ops look at every (n // 4096)-th of a segment's n entries


def slots(numels: Tensor, counts: Tensor) -> Tensor:
    """The most entries that a sampled selection of `counts` is given room for, int64 [S].

    The number that reaches the sampled threshold is within k·(1 ± 4/√(k·m/n)) of k with 99.99 %, m of the n entries
    being in the sample (dgs_ext.ops). What lies beyond waits for another step.

    Args:
        numels: the segments' sizes n, int64 [S].
        counts: the entries wished for, k, int64 [S].
    """
    stride = (numels // _SAMPLE).clamp(min=1)
    hits = counts.double() / stride  # k·m/n
    most = (counts * (1 + 4 / hits.sqrt())).ceil()
    return torch.where(counts > 0, most.nan_to_num(0.0).long(), 0).minimum(numels)


class Room:
    """A Selection whose buffers are made anew only when they are too small.

    Args:
        numels: the segments' sizes, int64 [S].
        device: where the selection lies.
        sampled: for selections by a sample, whose counts float.
    """

    def __init__(self, numels: Tensor, device: torch.device, *, sampled: bool) -> None:
        self._numels, self._device, self.sampled = numels, device, sampled
        self._selection: Selection | None = None
        self._buffers: Selection | None = None  # the largest one so far
        self._counts: Tensor | None = None

    def of(self, counts: Tensor) -> Selection:
        """A selection with slots for `counts`; what it held is lost."""
        if self._selection is None or not self._fits(counts):
            if self._counts is not None and not self.sampled:
                # What has grown once grows on: twice as much is soon enough for good.
                counts = torch.maximum(torch.minimum(2 * counts, self._numels), self._counts)
            capacity = slots(self._numels, counts) if self.sampled else counts
            self._selection, self._counts = self._cut(capacity), counts
        return self._selection

    def _cut(self, capacity: Tensor) -> Selection:
        total, old = int(capacity.sum()), self._buffers
        if old is None or old.indices.numel() < total:
            self._buffers = Selection.allocate(capacity, self._device)
            return self._buffers
        starts = torch.zeros_like(old.starts)
        torch.cumsum(capacity, 0, out=starts[1:])
        return replace(old, indices=old.indices[:total], values=old.values[:total], starts=starts)

    def _fits(self, counts: Tensor) -> bool:
        if self._counts is None:
            return False
        # A sampled selection is cut where its slots end, so that they must be those of these counts.
        return torch.equal(self._counts, counts) if self.sampled else bool((self._counts >= counts).all())
