# SPDX-License-Identifier: Apache-2.0
"""The buffers that a selection is written to and read from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


class HostCounts:
    """A CUDA selection's nnz on the host: copied to pinned memory behind the op that wrote it, waited for once.

    pinned: int64 [S] in pinned memory, where they arrive
    event: recorded behind the copy
    """

    def __init__(self, pinned: Tensor, event: torch.cuda.Event) -> None:
        self._pinned = pinned
        self._event = event
        self._version: int | None = None  # of the nnz that was fetched

    @classmethod
    def of(cls, nnz: Tensor) -> HostCounts | None:
        """Return what `nnz` int64 [S] needs: nothing on the CPU, nor where writes are not counted (inference)."""
        if not nnz.is_cuda or nnz.is_inference():
            return None
        return cls(torch.zeros(nnz.numel(), dtype=torch.int64, pin_memory=True), torch.cuda.Event())

    def fetch(self, nnz: Tensor) -> None:
        """Start a copy of `nnz` int64 [S] on its device's current stream; returns at once."""
        self._pinned.copy_(nnz, non_blocking=True)
        self._event.record(torch.cuda.current_stream(nnz.device))
        self._version = nnz._version

    def read(self, nnz: Tensor) -> Tensor:
        """Return `nnz` on the CPU, copied now if something has written to it since it was fetched."""
        if nnz._version != self._version:
            return nnz.cpu()
        self._event.synchronize()
        return self._pinned


@dataclass(frozen=True, eq=False)
class Selection:
    """Chosen entries of a flat vector of S segments: segment s owns the slots starts[s] .. starts[s+1].

    indices: int64 [K], flat indices; the first nnz[s] slots of each segment are filled, in ascending order
    values: float32 [K], the values there
    starts: int64 [S+1], on the CPU
    nnz: int64 [S], filled slots; -1 where a segment held a value that is not finite
    host: where the counts of a CUDA selection arrive unasked; without it they are copied when asked for
    """

    indices: Tensor
    values: Tensor
    starts: Tensor
    nnz: Tensor
    host: HostCounts | None = field(default=None, repr=False)

    @classmethod
    def allocate(cls, capacity: Tensor, device: torch.device | str = "cpu") -> Selection:
        """Return an empty selection with room for capacity[s] entries of segment s.

        Slots that are not filled hold anything, and take no memory before they are first written (on the CPU).

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
        nnz = torch.zeros(capacity.numel(), dtype=torch.int64, device=device)
        return cls(
            indices=torch.empty(slots, dtype=torch.int64, device=device),
            values=torch.empty(slots, dtype=torch.float32, device=device),
            starts=starts,
            nnz=nnz,
            host=HostCounts.of(nnz),
        )

    def written(self) -> None:
        """Say that an op has been launched that writes here: the counts set out for the host."""
        if self.host is not None and not torch.compiler.is_compiling():
            self.host.fetch(self.nnz)

    def counts(self) -> Tensor:
        """Return nnz on the CPU, to be read at once (waits for the op that wrote it, not for what follows it)."""
        return self.nnz.cpu() if self.host is None else self.host.read(self.nnz)

    def to_cpu(self) -> Selection:
        """Return the selection on the CPU: itself if it lies there, else a copy (waits for the device)."""
        if self.indices.device.type == "cpu":
            return self
        return Selection(self.indices.cpu(), self.values.cpu(), self.starts, self.counts().clone())

    def total(self) -> int:
        """Return the number of filled slots (waits as counts() does)."""
        return int(self.counts().clamp(min=0).sum())

    def failed(self) -> int | None:
        """Return the first segment that held a value that is not finite, or None (waits as counts() does)."""
        counts = self.counts()
        if not counts.numel() or int(counts.min()) >= 0:
            return None
        return int((counts < 0).nonzero()[0])

    def compact(self) -> tuple[Tensor, Tensor]:
        """Return the filled slots alone, ascending: indices int64 [total], values float32 [total]."""
        filled = self.nnz.clamp(min=0)
        starts = self.starts.to(filled.device)
        shift = starts[:-1] - (filled.cumsum(0) - filled)  # of a segment's entries: from packed place to slot
        slots = torch.repeat_interleave(shift, filled)
        slots += torch.arange(slots.numel(), device=slots.device)
        return self.indices[slots], self.values[slots]
