# SPDX-License-Identifier: Apache-2.0
"""A worker's weights: the float32 masters of its parameters, and the watch over who writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dgs_ext import ops, wire

from .layout import Layout


class Weights:
    """float32 [n] per segment, bitwise what the server's mirror holds.

    The master of a contiguous float32 parameter is the parameter itself; any other parameter (half precision,
    channels-last) has a copy, and is written from it after every change.
    """

    def __init__(self, layout: Layout, parameters: Sequence[Tensor]) -> None:
        self.layout, self.parameters = layout, parameters
        self.masters = [
            p.detach().view(-1) if _is_master(p) else p.detach().float().contiguous().view(-1).clone()
            for p in parameters
        ]
        self._seen: list[tuple[int, int]] = []
        self._mark()

    @property
    def device(self) -> torch.device:
        return self.masters[0].device

    def altered(self, turn: int) -> int | None:
        """The first segment that something else has written or replaced since the last change here, or None.

        Writes past autograd's count (`p.data.mul_(2)`) are looked for in one segment, the one whose `turn` it is,
        where the parameter is not its own master; where it is, the digest that goes with a push finds them.
        """
        for s, (p, seen) in enumerate(zip(self.parameters, self._seen, strict=True)):
            if (p._version, p.data_ptr()) != seen:
                return s
        s = turn % len(self.masters)
        p, master = self.parameters[s], self.masters[s]
        return None if _is_master(p) or torch.equal(p.detach(), master.view(p.shape).to(p.dtype)) else s

    def reload(self) -> None:
        """Takes the masters anew from replaced parameters (`p.data = …`), before a `load` overwrites them."""
        self.masters = [
            p.detach().view(-1) if _is_master(p) else m.to(p.device)
            for p, m in zip(self.parameters, self.masters, strict=True)
        ]

    def load(self, flat: Tensor) -> None:
        """Sets all weights from float32 [N] on the CPU."""
        for segment, master in zip(self.layout.segments, self.masters, strict=True):
            master.copy_(flat[segment.offset : segment.offset + segment.numel])
        self._publish()

    def add_sparse(self, indices: Tensor, values: Tensor) -> None:
        """w += q at `indices` int64 [K], ascending; on the CPU."""
        ops.sparse_add_(
            self.masters, self.layout.offsets, received(self.layout, indices, values, self.device)
        )
        self._publish()

    def add_dense(self, values: Tensor) -> None:
        """w += q, float32 [N] on the CPU."""
        ops.dense_add_(self.masters, self.layout.offsets, values.to(self.device))
        self._publish()

    def flat(self) -> Tensor:
        """A copy of all weights, float32 [N] on the CPU."""
        return torch.cat([m.cpu() for m in self.masters])

    def digest(self, segment: int | None = None) -> str:
        """A hash of one segment's bytes, or of all."""
        return digest(self.flat() if segment is None else self.masters[segment])

    def restore(self, segment: int, master: Tensor) -> None:
        """Takes a saved master, float32, if the parameter is what it rounds to."""
        p = self.parameters[segment]
        if not _is_master(p) and torch.equal(p.detach(), master.to(p.device, p.dtype)):
            self.masters[segment].copy_(master.view(-1))

    @contextmanager
    def swapped(self, flat: Tensor) -> Iterator[None]:
        """Shows `flat` in the parameters, and puts the weights back bit for bit."""
        mine = self.flat()
        self.load(flat)
        try:
            yield
        finally:
            self.load(mine)

    def _publish(self) -> None:
        with torch.no_grad():
            for p, master in zip(self.parameters, self.masters, strict=True):
                if not _is_master(p):  # a master has been written itself, and autograd knows
                    p.copy_(master.view(p.shape))
        self._mark()

    def _mark(self) -> None:
        self._seen = [
            (p._version, (m if _is_master(p) else p).data_ptr())
            for p, m in zip(self.parameters, self.masters, strict=True)
        ]


def received(layout: Layout, indices: Tensor, values: Tensor, device: torch.device) -> ops.Selection:
    """Entries that came over the wire (ascending, on the CPU), as the ops take them."""
    starts = torch.searchsorted(indices, layout.offsets)
    return ops.Selection(indices.to(device), values.to(device), starts, starts.diff().to(device))


def digest(weights: Tensor) -> str:
    """A hash of the bytes of float32 weights."""
    return f"{wire.xxh64(weights.cpu()):016x}"


def _is_master(p: Tensor) -> bool:
    return p.dtype == torch.float32 and p.is_contiguous()
