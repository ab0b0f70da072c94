# SPDX-License-Identifier: Apache-2.0
"""How far a worker is behind θ: looked at now and then, and warned of when it grows."""

from __future__ import annotations

import logging

from torch import Tensor

from .record import WorkerRecord
from .state import Mirror, ServerState

log = logging.getLogger(__name__)

_LOOK_EVERY = 64  # pulls between two looks at ‖θ - b‖
_LOOKS = 5  # growing looks in a row that are a warning


def length_of(pushed: Tensor, mirror: Mirror) -> float:
    """‖push‖ of the values `pushed` where `watch` is to look after the pull that follows, else 0."""
    return 0.0 if (mirror.pulls + 1) % _LOOK_EVERY else float(pushed.norm())


def watch(state: ServerState, worker: WorkerRecord, mirror: Mirror, length: float) -> None:
    """Counts a pull, and looks now and then at ‖θ - b‖ in units of a push, whose steady growth is a warning.

    Args:
        mirror: the worker's, after its pull.
        length: of its push.
    """
    mirror.pulls += 1
    if length == 0:
        return
    worker.residual = state.behind(mirror)
    worker.behind = worker.residual / length
    mirror.looks = [*mirror.looks[-_LOOKS:], worker.behind]
    growing = all(a < b for a, b in zip(mirror.looks, mirror.looks[1:], strict=False))
    if len(mirror.looks) > _LOOKS and growing and mirror.looks[-1] > 2 * mirror.looks[0]:
        log.warning(
            "worker %d falls behind: what it has not seen is %.1f pushes, was %.1f; raise density_down",
            worker.rank,
            mirror.looks[-1],
            mirror.looks[0],
        )
