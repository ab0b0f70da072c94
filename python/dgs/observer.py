# SPDX-License-Identifier: Apache-2.0
"""What a server says of its exchanges to whoever watches the run, and what a worker tells of its own training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .errors import ProtocolError

_MOST = 64  # values that a worker may tell, and characters of their names


class Member(Protocol):
    """What the server keeps of a worker; a WorkerRecord."""

    rank: int
    outcome: str
    reason: str
    bytes_up: int  # of all frames
    bytes_down: int
    behind: float  # ‖θ - b‖ / ‖push‖ at the last look; 0 before
    residual: float  # ‖θ - b‖ then


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker tells, when it is asked, with a push or its goodbye."""

    seconds: float  # since it began
    waiting: float  # of them, for the network
    samples: int  # since it began
    loss: float | None = None  # mean over the samples since it told last
    measured: Mapping[str, float] = field(default_factory=dict)  # by an evaluation of its own


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A push that was applied, and its answer."""

    version: int  # of the weights that the worker holds now
    staleness: int
    up: int  # bytes of the push's frame
    down: int  # and of the answer's
    seconds: float  # from the push's arrival until the answer was sent


class Observer:
    """Hears what happens in a server; this one does not listen. Called from all sessions' threads."""

    def due(self, rank: int) -> bool:
        """Whether the worker is to tell of itself with its next push."""
        return False

    def joined(self, worker: Member) -> None:
        """A worker has its place."""

    def exchanged(self, worker: Member, exchange: Exchanged) -> None:
        """A push was applied and answered."""

    def told(self, worker: Member, told: Told) -> None:
        """A worker has told of itself."""

    def left(self, worker: Member) -> None:
        """A worker's session has ended; its `outcome` says how."""


def heard(told: Any) -> Told | None:
    """What the metadata of a push or a goodbye tells, if anything. Raises ProtocolError when it is no Told."""
    if told is None:
        return None
    if not isinstance(told, dict):
        raise ProtocolError(f"told must be an object, got {told!r:.80}")
    measured = told.get("measured", {})
    if not isinstance(measured, dict) or len(measured) > _MOST or any(len(name) > _MOST for name in measured):
        raise ProtocolError(f"told.measured must be at most {_MOST} numbers with names as short")
    loss = told.get("loss")
    return Told(
        _number("seconds", told.get("seconds"), least=0),
        _number("waiting", told.get("waiting"), least=0),
        int(_number("samples", told.get("samples"), least=0)),
        None if loss is None else _number("loss", loss),
        {name: _number(name, value) for name, value in measured.items()},
    )


def _number(name: str, value: Any, least: float = -math.inf) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) < 2**63
        or value < least
    ):
        raise ProtocolError(f"told.{name} must be a number of at least {least:g}, got {value!r:.80}")
    return float(value)
