# SPDX-License-Identifier: Apache-2.0
"""Workers that paused: what the server keeps of each, so that it goes on without a snapshot (docs/protocol.md)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..weights import digest
from .budget import Budget, Unseen


@dataclass(frozen=True, slots=True)
class Paused:
    """A worker between two of its exchanges."""

    rank: int
    applied: int  # its pushes that were applied
    version: int  # of the weights that it holds
    digest: str  # of those weights
    weights: Tensor | None  # its mirror, float32 [N]; a dense method has none
    unseen: Unseen | None = None  # of these weights

    def saved(self) -> dict[str, Any]:
        """As numbers, strings and tensors."""
        return {
            "applied": self.applied,
            "version": self.version,
            "digest": self.digest,
            "weights": None if self.weights is None else self.weights.cpu().clone(),
            "unseen": None if self.unseen is None else self.unseen.entries(),
        }


def loaded(rank: int, saved: Mapping[str, Any], budget: Budget) -> Paused:
    """What `saved` wrote. Raises ConfigError for a mirror of another size."""
    weights, numel = saved["weights"], budget.layout.numel
    if weights is not None and weights.numel() != numel:
        raise ConfigError(
            f"state: the mirror of worker {rank} must have {numel} numbers, got {weights.numel()}"
        )
    hash_ = saved["digest"] if weights is None else digest(weights)
    unseen = Unseen(budget, saved.get("unseen"))
    return Paused(rank, int(saved["applied"]), int(saved["version"]), hash_, weights, unseen)


class Pauses:
    """The paused workers by rank. Used by all sessions' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paused: dict[int, Paused] = {}

    def keep(self, paused: Paused) -> None:
        with self._lock:
            self._paused[paused.rank] = paused

    def find(self, rank: int | None, hash_: str | None) -> Paused | None:
        """The one of that rank, or of any where `rank` is None, whose weights have that digest."""
        with self._lock:
            ranks = sorted(self._paused) if rank is None else [rank]
            found = [self._paused[r] for r in ranks if r in self._paused and self._paused[r].digest == hash_]
            return found[0] if found else None

    def drop(self, rank: int) -> None:
        """Whoever has that rank now, it is not the worker that paused, or paused no longer."""
        with self._lock:
            self._paused.pop(rank, None)

    def ranks(self) -> set[int]:
        with self._lock:
            return set(self._paused)

    def all(self) -> list[Paused]:
        with self._lock:
            return list(self._paused.values())
