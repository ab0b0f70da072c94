# SPDX-License-Identifier: Apache-2.0
"""What the server holds: θ, its version, and a mirror of every worker's weights. No transport here."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgs_ext import ops
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec

from .. import memory
from ..errors import DivergedError
from ..layout import Layout
from ..room import Room
from ..weights import received
from .lock import SharedLock


@dataclass
class Mirror:
    """Bitwise the weights that one worker holds. One thread uses it at a time."""

    weights: Tensor  # [N]
    pulls: int = 0
    looks: list[float] = field(default_factory=list)  # ‖θ - b‖ / ‖push‖ at the last looks


@dataclass(frozen=True, slots=True)
class Snapshot:
    """θ at a version, float32 [N] on the CPU."""

    version: int
    theta: Tensor


class ServerState:
    """θ, its version and the arithmetic on them.

    `push` holds the exclusive lock, `pull` and `snapshot` a shared one, so that every reply is a function of θ at its
    version and of one mirror.

    Args:
        layout: the segments.
        theta: the first parameters, float32 [N]; copied to `device`.
        max_version: the version after which pushes are no longer applied.
        sampled: select a pull by a sampled threshold, with counts that float, instead of exactly.
    """

    def __init__(
        self,
        layout: Layout,
        theta: Tensor,
        *,
        device: torch.device,
        max_version: int | None = None,
        sampled: bool = False,
    ) -> None:
        self.layout, self.device, self.max_version, self.sampled = layout, device, max_version, sampled
        self._theta = memory.copy_of(theta.detach(), device)
        # From the start no number below 2^-126 and no -0: adding a zero then changes nothing, on either side.
        ops.dense_add_([self._theta], layout.offsets, torch.zeros_like(self._theta))
        self._overflow = torch.full((1,), -1, device=device)  # where a push would; used by whoever pushes
        self._version = 0
        self._lock = SharedLock()
        self._advanced = threading.Condition()

    @property
    def version(self) -> int:
        return self._version

    @property
    def done(self) -> bool:
        return self.max_version is not None and self._version >= self.max_version

    def push_sparse(self, indices: Tensor, values: Tensor) -> int | None:
        """θ -= q at `indices` int64 [K], on the CPU. Returns the version it made, or None when the run is done.

        Raises DivergedError, and changes nothing, if a parameter would overflow.
        """
        sent = received(self.layout, indices, values, self.device)
        with self._lock.exclusive():
            if self.done:
                return None
            ops.sparse_overflow([self._theta], self.layout.offsets, sent, self._overflow)
            self._refuse_overflow()
            ops.sparse_add_([self._theta], self.layout.offsets, sent, subtract=True)
            return self._advance()

    def push_dense(self, values: Tensor) -> int | None:
        """θ -= q, float32 [N] on the CPU; the same otherwise."""
        values = values.to(self.device)
        with self._lock.exclusive():
            if self.done:
                return None
            ops.dense_overflow([self._theta], self.layout.offsets, values, self._overflow)
            self._refuse_overflow()
            ops.dense_add_([self._theta], self.layout.offsets, values, subtract=True)
            return self._advance()

    def _refuse_overflow(self) -> None:
        entry = int(self._overflow)
        if entry >= 0:
            name = self.layout.segment_of(entry).name
            raise DivergedError(f"the push would make {name} overflow at version {self._version}", name)

    def _advance(self) -> int:
        with self._advanced:
            self._version += 1
            self._advanced.notify_all()
        return self._version

    def wait_beyond(self, version: int, timeout: float) -> int:
        """Waits until the version passes `version`; returns the version then."""
        with self._advanced:
            self._advanced.wait_for(lambda: self._version > version, timeout)
        return self._version

    def pull(self, mirror: Mirror, counts: Tensor, codec: Codec, room: Room) -> tuple[int, Selection]:
        """The largest part of θ - mirror, quantised and added to the mirror; it lies in `room`.

        Raises DivergedError where the difference is not finite; the mirror is then of no use.
        """
        selection, sampled = room.of(counts), room.sampled
        offsets = self.layout.offsets
        with self._lock.shared():
            version = self._version
            if codec == Codec.FLOAT32:  # in one sweep, while the mirror is in the cache
                ops.pull([self._theta], [mirror.weights], offsets, counts, selection, codec, sampled=sampled)
            else:  # what many workers are sent: pushes would wait for the rest, too
                ops.select_difference(
                    [self._theta], [mirror.weights], offsets, counts, selection, sampled=sampled
                )
        bad = selection.failed()
        if bad is not None:
            name = self.layout.segments[bad].name
            raise DivergedError(f"{name} and the worker's copy differ by too much at version {version}", name)
        if codec != Codec.FLOAT32:
            ops.quantize_selection_(selection, offsets, codec)
            ops.sparse_add_([mirror.weights], offsets, selection)
        return version, selection.to_cpu()

    def snapshot(self, out: Tensor | None = None) -> Snapshot:
        """A copy of θ at one version; in `out`, float32 [N] on the CPU, if there is one."""
        # New memory is written once before the lock, so that no push waits for fresh pages.
        theta = torch.zeros(self._theta.shape) if out is None else out
        with self._lock.shared():
            theta.copy_(self._theta)
            return Snapshot(self._version, theta)

    def load(self, snapshot: Snapshot) -> None:
        """Goes on from a saved θ and its version."""
        with self._lock.exclusive():
            self._theta.copy_(snapshot.theta)
            self._version = snapshot.version

    def mirror(self, snapshot: Snapshot) -> Mirror:
        """The mirror of a worker that was sent `snapshot`."""
        return self.mirror_of(snapshot.theta)

    def mirror_of(self, weights: Tensor) -> Mirror:
        """The mirror of a worker that holds `weights`, float32 [N]."""
        return Mirror(memory.copy_of(weights, self.device))

    def room(self) -> Room:
        """Scratch for pulls, one at a time."""
        return Room(self.layout.offsets.diff(), self.device, sampled=self.sampled)

    def behind(self, mirror: Mirror) -> float:
        """‖θ - b‖, what a worker has not yet seen."""
        with self._lock.shared():
            return float(torch.dist(self._theta, mirror.weights))
