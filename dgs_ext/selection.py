# SPDX-License-Identifier: Apache-2.0
"""The buffers that a selection is written to and read from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Selection:
    """Chosen entries of a flat vector of S segments: segment s owns the slots starts[s] .. starts[s+1].

    indices: int64 [K], flat indices; the first nnz[s] slots of each segment are filled, in ascending order
    values: float32 [K], the values there
    starts: int64 [S+1], on the CPU
    nnz: int64 [S], filled slots; -1 where a segment held a value that is not finite
    """

    indices: Tensor
    values: Tensor
    starts: Tensor
    nnz: Tensor

    @classmethod
    def allocate(cls, capacity: Tensor, device: torch.device | str = "cpu") -> Selection:
        """Return an empty selection with room for capacity[s] entries of segment s.

        capacity: int64 [S] on the CPU, at least 0 each

        Raises ValueError for a capacity of another shape, dtype or device, or below 0.
        """
        if capacity.dim() != 1 or capacity.dtype != torch.int64 or capacity.device.type != "cpu":
            raise ValueError(
                "Selection.allocate: capacity must be int64 [S] on the CPU, got"
                f" {capacity.dtype} {list(capacity.shape)} on {capacity.device}"
            )
        if bool((capacity < 0).any()):
            raise ValueError(f"Selection.allocate: capacity must not be negative, got {int(capacity.min())}")
        starts = torch.zeros(capacity.numel() + 1, dtype=torch.int64)
        torch.cumsum(capacity, 0, out=starts[1:])
        slots = int(starts[-1])
        return cls(
            indices=torch.zeros(slots, dtype=torch.int64, device=device),
            values=torch.zeros(slots, dtype=torch.float32, device=device),
            starts=starts,
            nnz=torch.zeros(capacity.numel(), dtype=torch.int64, device=device),
        )

    def to_cpu(self) -> Selection:
        """Return the selection on the CPU: itself if it lies there, else a copy (waits for the device)."""
        if self.indices.device.type == "cpu":
            return self
        return Selection(self.indices.cpu(), self.values.cpu(), self.starts, self.nnz.cpu())

    def total(self) -> int:
        """Return the number of filled slots (waits for the device)."""
        return int(self.nnz.clamp(min=0).sum())

    def failed(self) -> int | None:
        """Return the first segment that held a value that is not finite, or None (waits for the device)."""
        bad = (self.nnz < 0).nonzero()
        return int(bad[0]) if bad.numel() else None

    def compact(self) -> tuple[Tensor, Tensor]:
        """Return the filled slots alone, ascending: indices int64 [total], values float32 [total]."""
        filled = self.nnz.clamp(min=0)
        starts = self.starts.to(filled.device)
        shift = starts[:-1] - (filled.cumsum(0) - filled)  # of a segment's entries: from packed place to slot
        slots = torch.repeat_interleave(shift, filled)
        slots += torch.arange(slots.numel(), device=slots.device)
        return self.indices[slots], self.values[slots]
