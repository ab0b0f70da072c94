# SPDX-License-Identifier: Apache-2.0
"""One worker's session on the server: receives, applies and replies until the worker leaves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from dgs_ext.ops import Selection
from dgs_ext.wire import Codec, Decoded, Header, Kind

from .. import protocol
from ..buffers import BufferStore
from ..errors import DivergedError, LinkClosedError, ProtocolError, RefusedError, TransportError
from ..frames import Packer
from ..observer import Exchanged, Observer, heard
from ..transport import Link
from ..weights import digest
from .budget import Budget, Unseen
from .desks import Desk, Desks
from .lock import SharedLock
from .pauses import Paused
from .state import Mirror, ServerState

log = logging.getLogger(__name__)

_LOOK_EVERY = 64  # pulls between two looks at ‖θ - b‖
_LOOKS = 5  # growing looks in a row that are a warning
_STUCK = 5.0  # seconds that a session which was dropped has to end by itself
_FAREWELL = timedelta(seconds=10)  # as long as a worker waits; nobody watches its beats any more


@dataclass
class WorkerRecord:
    """What the server knows of a worker, over all its sessions."""

    identity: str
    rank: int
    codec_up: Codec
    codec_down: Codec  # of the last pull; until then the widest that one may come in
    dense: bool
    applied: int = 0  # its pushes that were applied, as the worker counts them
    outcome: str = "alive"  # then "finished", "left", "paused", "failed" or "died"
    reason: str = ""
    exchanges: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    staleness: int = 0
    behind: float = 0.0  # ‖θ - b‖ / ‖push‖ at the last look
    residual: float = 0.0  # ‖θ - b‖ then


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the sessions of one server share.

    `gate` is held shared from before a push is applied, or a mirror made anew, until the answer is there: who holds
    it exclusively sees every mirror between two exchanges.
    """

    state: ServerState
    buffers: BufferStore
    budget: Budget
    active: Callable[[], int]
    timeout: timedelta
    desks: Desks
    gate: SharedLock = field(default_factory=SharedLock)
    observer: Observer = field(default_factory=Observer)


class Session:
    """Owns its link, its worker's mirror and the answers it sends; `run` or `handle` is called from one thread.

    That thread receives and sends. What lies between, from unpacking to packing, is done at a desk.
    """

    def __init__(self, link: Link, worker: WorkerRecord, shared: Exchange) -> None:
        self.link, self.worker = link, worker
        self._shared, self._state = shared, shared.state
        self._mirror: Mirror | None = None
        self._unseen = Unseen(shared.budget)
        self._held = 0  # the version of the weights that the worker was sent last
        self._told_digest: str | None = None
        self._echo: Tensor | None = None  # of the goodbye
        self.dropped = ""  # why the server ended it, if it did
        self._dropped_at = 0.0
        self._given_up = False
        self._turn = threading.Lock()  # held while a frame is answered
        self._dismissal = threading.Lock()  # taken once, for good
        self.thread: threading.Thread | None = None  # that runs it
        self.ended = threading.Event()  # set when nothing more will be applied

    def run(self) -> tuple[str, str]:
        """Serves the worker until its goodbye; returns the outcome that it told (a Report's), and why.

        The goodbye is answered by `farewell`.

        Raises:
            TransportError, FrameError, ProtocolError: the session is to be dropped; θ is whole.
        """
        while True:
            told = self.handle(self.link.receive(None))
            if told is not None:
                return told

    def drop(self, why: str) -> None:
        """Ends `run` from another thread, if the link can."""
        if not self.dropped:
            self.dropped, self._dropped_at = why, time.monotonic()
        self.link.interrupt()

    def give_up(self) -> bool:
        """Whether a session that was dropped and has not ended applies nothing from now on.

        gloo wakes nobody who waits for the rest of a message whose sender has died.
        """
        late = self.dropped and time.monotonic() - self._dropped_at > _STUCK
        if not late or not self._turn.acquire(blocking=False):
            return False
        self._given_up = True
        self._turn.release()
        return True

    def dismissed(self) -> bool:
        """Whether it has been dismissed before this call."""
        return not self._dismissal.acquire(blocking=False)

    def handle(self, frame: Tensor) -> tuple[str, str] | None:
        """Does what one frame asks and sends the answer, if it has one; of a goodbye returns what `run` returns."""
        with self._turn:
            if self._given_up:
                raise LinkClosedError("the server has given this session up")
            return self._handle(frame)

    def _handle(self, frame: Tensor) -> tuple[str, str] | None:
        began, exchanges, before = time.perf_counter(), self.worker.exchanges, self.worker.bytes_down
        self.worker.bytes_up += frame.numel()
        with ExitStack() as sent:  # the memory of what is packed is another session's after it
            answers, told = self._shared.desks.run(lambda desk: self._answer(frame, desk, sent))
            for answer in answers:
                self._send(answer)
        if self.worker.exchanges > exchanges:
            seconds, down = time.perf_counter() - began, self.worker.bytes_down - before
            made = Exchanged(self._held, self.worker.staleness, frame.numel(), down, seconds)
            self._shared.observer.exchanged(self.worker, made)
        return told

    def farewell(self) -> None:
        """Echoes the goodbye, if there was one; once the worker has left, so that it may rely on that."""
        echo, self._echo = self._echo, None
        if echo is None:
            return
        try:
            self._send(echo, min(self._shared.timeout, _FAREWELL))
        except TransportError as error:
            log.debug("worker %d did not wait for the echo of its goodbye: %s", self.worker.rank, error)

    def _answer(
        self, frame: Tensor, desk: Desk, sent: ExitStack
    ) -> tuple[list[Tensor], tuple[str, str] | None]:
        """Does what one frame asks; returns the frames to be sent, and of a goodbye what it told."""
        decoded = desk.packer.decode(frame)
        header = decoded.header
        if header.kind == Kind.GOODBYE:
            self._echo = self._reply(Kind.GOODBYE, header, b"")
            return [], self._goodbye(decoded)
        try:
            if header.kind == Kind.PUSH:
                with self._shared.gate.shared():
                    return [self._exchange(decoded, desk, sent)], None
            if header.kind == Kind.REQUEST:
                with self._shared.gate.shared():
                    return self._request(decoded), None
        except RefusedError as error:
            log.warning("worker %d: refused (%s): %s", self.worker.rank, error.code, error)
            meta = protocol.meta(**protocol.refusal(error.code, str(error)))
            return [self._reply(Kind.ERROR, header, meta)], None
        if header.kind != Kind.BUFFERS:
            raise ProtocolError(f"a worker may not send a {header.kind.name} frame")
        self._buffers(decoded)
        return [], None

    def resume(self, paused: Paused) -> None:
        """Goes on where the worker paused; before the first frame."""
        self.worker.applied, self._held = paused.applied, paused.version
        if paused.weights is not None:
            self._mirror = self._state.mirror_of(paused.weights)
            self._unseen = paused.unseen or Unseen(self._shared.budget)

    def paused(self) -> Paused | None:
        """The worker as it stands between two exchanges; None if it could not go on from there.

        The weights are those of the session, and change with its next exchange.
        """
        weights = None if self._mirror is None else self._mirror.weights
        hash_ = self._told_digest if weights is None else digest(weights)
        if hash_ is None:
            return None
        return Paused(self.worker.rank, self.worker.applied, self._held, hash_, weights, self._unseen)

    def _exchange(self, decoded: Decoded, desk: Desk, sent: ExitStack) -> Tensor:
        """Applies a push, and makes the frame that answers it."""
        meta = protocol.parse_meta(decoded.meta)
        density, told = self._check_push(decoded, meta), heard(meta.get("told"))
        values, indices = desk.packer.values(decoded), None
        if decoded.form == "sparse":
            indices = desk.packer.entries(decoded)[0]
            made = self._state.push_sparse(indices, values)
        else:
            made = self._state.push_dense(values)
        if made is not None:
            self._shared.budget.count(indices)
            self.worker.applied = decoded.header.sequence
            self.worker.exchanges += 1
            self.worker.staleness = max(0, made - 1 - decoded.header.version)
        answer = {
            "applied": made is not None,
            "active": self._shared.active(),
            "staleness": self.worker.staleness,
        }
        if told is not None:
            self._shared.observer.told(self.worker, told)
        if self._shared.observer.due(self.worker.rank):
            answer["tell"] = True
        told_back = protocol.meta(**answer)
        packer = sent.enter_context(self._shared.desks.answer())
        if self.worker.dense:
            snapshot = self._state.snapshot(desk.model)
            self._held = snapshot.version
            header = self._header(Kind.PULL, decoded.header, Codec.FLOAT32, snapshot.version)
            return packer.dense(header, told_back, snapshot.theta)
        version, selection = self._difference(density, values, desk)
        header = self._header(Kind.PULL, decoded.header, self.worker.codec_down, version)
        return packer.sparse(header, told_back, selection)

    def _check_push(self, decoded: Decoded, meta: dict[str, Any]) -> float:
        """Everything that can be wrong with a push, before it is applied; returns the worker's density."""
        header = decoded.header
        if decoded.form == "bytes":
            raise ProtocolError("a PUSH frame holds bytes, not values")
        if header.sequence != self.worker.applied + 1:
            raise RefusedError(
                "sequence", f"push {header.sequence} came after {self.worker.applied}: lost or repeated"
            )
        if self._mirror is None and not self.worker.dense:
            raise RefusedError("mirror", "a push came before the first snapshot was requested")
        if "digest" in meta:
            self._check_digest(meta["digest"])
        return _density(meta)

    def _check_digest(self, given: Any) -> None:
        segments = self._state.layout.segments
        if not (isinstance(given, list) and len(given) == 2 and isinstance(given[0], int)):
            raise ProtocolError(f"a push's digest must be [segment, hash], got {given!r:.80}")
        number, hash_ = given
        if not 0 <= number < len(segments) or self._mirror is None:
            raise ProtocolError(f"a push's digest names segment {number} of {len(segments)}")
        segment = segments[number]
        mine = digest(self._mirror.weights[segment.offset : segment.offset + segment.numel])
        if mine != hash_:
            raise RefusedError(
                "drift", f"the weights of {segment.name} are not those that this worker was sent"
            )

    def _difference(self, density: float, pushed: Tensor, desk: Desk) -> tuple[int, Selection]:
        """What the worker is sent of what it has not seen, and the version that it is then at."""
        worker, mirror = self.worker, self._mirror
        assert mirror is not None
        plan = self._shared.budget.plan(self._unseen.entries(), density, worker.codec_up)
        try:
            version, selection = self._state.pull(mirror, plan.counts, plan.codec, desk.room)
        except DivergedError as error:
            # The push is applied, so it cannot be refused: the worker is to join again, with a snapshot.
            raise ProtocolError(str(error)) from None
        self._held, worker.codec_down = version, plan.codec
        self._unseen.sent(plan.counts, selection.nnz, exact=not desk.room.sampled)
        self._watch(mirror, pushed)
        return version, selection

    def _request(self, decoded: Decoded) -> list[Tensor]:
        """A snapshot and the buffers; as the worker's new weights ("mirror") or only to look at."""
        meta = protocol.parse_meta(decoded.meta)
        # A push between the two is counted though the snapshot has it, rather than never.
        unseen = Unseen(self._shared.budget, torch.zeros_like(self._shared.budget.pushed))
        snapshot = self._state.snapshot()
        if meta.get("mirror"):
            self._unseen = unseen
            self._held = snapshot.version
            self._mirror = None if self.worker.dense else self._state.mirror(snapshot)
        answer = protocol.meta(active=self._shared.active(), applied=self.worker.applied)
        header = self._header(Kind.SNAPSHOT, decoded.header, Codec.FLOAT32, snapshot.version)
        # In room of their own, which is not kept.
        model = Packer(self._state.layout).dense(header, answer, snapshot.theta)
        header = self._header(Kind.BUFFERS, decoded.header, Codec.BYTES, snapshot.version)
        packed = self._shared.buffers.packed()
        if meta.get("mirror"):
            packed = torch.cat([packed, self._shared.buffers.frozen])
        return [model, Packer(self._state.layout).opaque(header, b"", packed)]

    def _buffers(self, decoded: Decoded) -> None:
        if decoded.body is None:
            raise ProtocolError("a BUFFERS frame must hold bytes")
        self._shared.buffers.update(self.worker.rank, decoded.body)

    def _goodbye(self, decoded: Decoded) -> tuple[str, str]:
        meta = protocol.parse_meta(decoded.meta)
        told = heard(meta.get("told"))
        if told is not None:
            self._shared.observer.told(self.worker, told)
        told = meta.get("outcome")
        outcome = told if told in ("failed", "left", "paused") else "finished"
        if isinstance(meta.get("digest"), str):
            self._told_digest = meta["digest"]
        return outcome, str(meta.get("reason", ""))[:1000]

    def _watch(self, mirror: Mirror, pushed: Tensor) -> None:
        """Looks now and then at how far the worker is behind, in units of a push; steady growth is a warning."""
        mirror.pulls += 1
        norm = 0.0 if mirror.pulls % _LOOK_EVERY else float(pushed.norm())
        if norm == 0:
            return
        self.worker.residual = self._state.behind(mirror)
        self.worker.behind = self.worker.residual / norm
        mirror.looks = [*mirror.looks[-_LOOKS:], self.worker.behind]
        growing = all(a < b for a, b in zip(mirror.looks, mirror.looks[1:], strict=False))
        if len(mirror.looks) > _LOOKS and growing and mirror.looks[-1] > 2 * mirror.looks[0]:
            log.warning(
                "worker %d falls behind: what it has not seen is %.1f pushes, was %.1f; raise density_down",
                self.worker.rank,
                mirror.looks[-1],
                mirror.looks[0],
            )

    def _header(self, kind: Kind, request: Header, codec: Codec, version: int) -> Header:
        return Header(
            kind=kind,
            codec=codec,
            worker=self.worker.rank,
            fingerprint=self._state.layout.fingerprint,
            sequence=request.sequence,
            version=version,
            done=self._state.done,
        )

    def _reply(self, kind: Kind, request: Header, meta: bytes) -> Tensor:
        header = self._header(kind, request, Codec.BYTES, self._state.version)
        return Packer(self._state.layout).opaque(header, meta)

    def _send(self, frame: Tensor, timeout: timedelta | None = None) -> None:
        self.worker.bytes_down += frame.numel()
        self.link.send(frame, timeout or self._shared.timeout)


def _density(meta: dict[str, Any]) -> float:
    density = meta.get("density")
    if not isinstance(density, (int, float)) or not 0.0 < density <= 1.0:
        raise ProtocolError(f"a push's density must be in (0, 1], got {density!r:.80}")
    return float(density)
