# SPDX-License-Identifier: Apache-2.0
"""Mode sgd: the run of one process without a server, watched as the others are."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config import Settings
from ..observed import Observed
from ..observer import Exchanged, heard
from .run import Run, collector


@dataclass
class _Process:
    """The one that trains, as a Member that sends nothing."""

    rank: int = 0
    outcome: str = "alive"
    reason: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    behind: float = 0.0
    residual: float = 0.0


class Alone:
    """Tells a Run of the steps of one process. At the exit of a process that did not `close`, the run is closed.

    Args:
        settings, args, sizes: see Run.
        observed: what the training loop tells.
    """

    def __init__(
        self, settings: Settings, args: object | None, sizes: Sequence[int], observed: Observed
    ) -> None:
        hears = collector(settings, sizes)
        self._run: Run | None = None if hears is None else Run(hears, settings, args, sizes)
        self._process, self._observed = _Process(), observed
        if self._run is not None:
            self._run.collector.joined(self._process)
            self._exit = weakref.finalize(self, self._run.close, "left without close()")

    def stepped(self, version: int) -> None:
        """A step was taken."""
        if self._run is None:
            return
        collector = self._run.collector
        collector.exchanged(self._process, Exchanged(version, 0, 0, 0, 0.0))
        if collector.due(self._process.rank):
            self._tell()

    def _tell(self) -> None:
        told = heard(self._observed.take(0.0))
        if self._run is not None and told is not None:
            self._run.collector.told(self._process, told)

    def evaluated(self, version: int, values: Mapping[str, float]) -> None:
        """The model was measured."""
        if self._run is not None:
            self._run.collector.stamp()(version, values)

    def close(self, outcome: str, reason: str) -> None:
        """The training is over."""
        if self._run is None:
            return
        self._exit.detach()
        self._tell()
        self._process.outcome, self._process.reason = outcome, reason
        self._run.collector.left(self._process)
        self._run.close(outcome)
        self._run = None
