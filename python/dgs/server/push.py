# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a push: found before any of it is applied."""

from __future__ import annotations

from typing import Any

from dgs_ext.wire import Decoded

from ..errors import ProtocolError, RefusedError
from ..layout import Layout
from ..weights import digest
from .record import WorkerRecord
from .state import Mirror


def check_push(
    decoded: Decoded, meta: dict[str, Any], worker: WorkerRecord, mirror: Mirror | None, layout: Layout
) -> float:
    """The density that the worker says its pushes have.

    Raises:
        ProtocolError: it is none that a worker of this library sends; the session is to be dropped.
        RefusedError: the worker and the server no longer agree; it is told, and the session goes on.
    """
    header = decoded.header
    if decoded.form == "bytes":
        raise ProtocolError("a PUSH frame holds bytes, not values")
    if header.sequence != worker.applied + 1:
        raise RefusedError(
            "sequence", f"push {header.sequence} came after {worker.applied}: lost or repeated"
        )
    if mirror is None and not worker.dense:
        raise RefusedError("mirror", "a push came before the first snapshot was requested")
    if "digest" in meta:
        _check_digest(meta["digest"], mirror, layout)
    return _density(meta)


def _check_digest(given: Any, mirror: Mirror | None, layout: Layout) -> None:
    segments = layout.segments
    if not (isinstance(given, list) and len(given) == 2 and isinstance(given[0], int)):
        raise ProtocolError(f"a push's digest must be [segment, hash], got {given!r:.80}")
    number, hash_ = given
    if not 0 <= number < len(segments) or mirror is None:
        raise ProtocolError(f"a push's digest names segment {number} of {len(segments)}")
    segment = segments[number]
    mine = digest(mirror.weights[segment.offset : segment.offset + segment.numel])
    if mine != hash_:
        raise RefusedError("drift", f"the weights of {segment.name} are not those that this worker was sent")


def _density(meta: dict[str, Any]) -> float:
    density = meta.get("density")
    if not isinstance(density, (int, float)) or not 0.0 < density <= 1.0:
        raise ProtocolError(f"a push's density must be in (0, 1], got {density!r:.80}")
    return float(density)
