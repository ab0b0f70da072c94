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
    """Buffers for selections, made anew only when they are too small; a selection is cut to what is asked for.

    So that a few entries cost what a few do after there were many: all slots are quantised, and copied from a device.

    Args:
        numels: the segments' sizes, int64 [S].
        device: where the selection lies.
        sampled: for selections by a sample, whose counts float.
    """

    def __init__(self, numels: Tensor, device: torch.device, *, sampled: bool) -> None:
        self._numels, self._device, self.sampled = numels, device, sampled
        self._buffers: Selection | None = None  # the largest one so far
        self._cut: tuple[Tensor, Selection] | None = None  # the last, and its counts

    def of(self, counts: Tensor) -> Selection:
        """A selection with slots for `counts` and no more; what another held is lost."""
        if self._cut is None or not torch.equal(self._cut[0], counts):
            capacity = slots(self._numels, counts) if self.sampled else counts
            buffers = self._enough(capacity)
            starts = torch.zeros_like(buffers.starts)
            torch.cumsum(capacity, 0, out=starts[1:])
            total = int(starts[-1])
            cut = replace(
                buffers, indices=buffers.indices[:total], values=buffers.values[:total], starts=starts
            )
            self._cut = counts, cut
        return self._cut[1]

    def _enough(self, capacity: Tensor) -> Selection:
        if self._buffers is None or self._buffers.indices.numel() < int(capacity.sum()):
            if self._buffers is not None:
                # What has grown once grows on: twice as much is soon enough for good.
                capacity = torch.minimum(2 * capacity, self._numels)
            self._buffers = self._cut = None  # freed before there are others
            self._buffers = Selection.allocate(capacity, self._device)
        return self._buffers
