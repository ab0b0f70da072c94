# SPDX-License-Identifier: Apache-2.0
"""What a server does with one worker's frames: applies its pushes, and answers with what it has not seen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor

from dgs_ext.ops import Selection
from dgs_ext.wire import Codec, Decoded, Header, Kind

from .. import protocol
from ..buffers import BufferStore
from ..errors import DivergedError, ProtocolError, RefusedError
from ..frames import Packer
from ..observer import Observer, heard
from ..weights import digest
from .behind import length_of, watch
from .budget import Budget, Unseen
from .desks import Desk, Desks
from .lock import SharedLock
from .pauses import Paused
from .push import check_push
from .record import WorkerRecord
from .state import Mirror, ServerState

log = logging.getLogger(__name__)

SNAPSHOTS = 4  # on their way at once, each as large as the model; who joins while they are waits


@dataclass(frozen=True, slots=True)
class Shared:
    """What the sessions of one server share.

    `gate` is held shared from before a push is applied, or a mirror made anew, until the answer is there: who holds
    it exclusively sees every mirror between two exchanges. `snapshots` is held from before a snapshot is made
    until it is sent, or its worker has not taken it in time.
    """

    state: ServerState
    buffers: BufferStore
    budget: Budget
    active: Callable[[], int]
    timeout: timedelta
    desks: Desks
    gate: SharedLock = field(default_factory=SharedLock)
    snapshots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(SNAPSHOTS))
    observer: Observer = field(default_factory=Observer)


@dataclass(frozen=True, slots=True)
class Goodbye:
    """What a worker told when it left: a Report's outcome, why, and the frame that is to be its echo."""

    outcome: str
    reason: str
    echo: Tensor


class Exchange:
    """Owns one worker's mirror. Its frames are answered one after the other, each at a desk."""

    def __init__(self, worker: WorkerRecord, shared: Shared) -> None:
        self.worker, self._shared, self._state = worker, shared, shared.state
        self.mirror: Mirror | None = None
        self.held = 0  # the version of the weights that the worker was sent last
        self._unseen = Unseen(shared.budget)
        self._told_digest: str | None = None

    def answer(self, frame: Tensor, desk: Desk, sent: ExitStack) -> list[Tensor] | Goodbye:
        """Does what one frame asks; returns the frames to be sent, whose memory stands until `sent` is closed.

        Raises FrameError, ProtocolError: the session is to be dropped; θ is whole.
        """
        decoded = desk.packer.decode(frame)
        header = decoded.header
        if header.kind == Kind.GOODBYE:
            return self._goodbye(decoded)
        try:
            if header.kind == Kind.PUSH:
                with self._shared.gate.shared():
                    return [self._push(decoded, desk, sent)]
            if header.kind == Kind.REQUEST:
                with self._shared.gate.shared():
                    return self._request(decoded)
        except RefusedError as error:
            log.warning("worker %d: refused (%s): %s", self.worker.rank, error.code, error)
            meta = protocol.meta(**protocol.refusal(error.code, str(error)))
            return [self._reply(Kind.ERROR, header, meta)]
        if header.kind != Kind.BUFFERS:
            raise ProtocolError(f"a worker may not send a {header.kind.name} frame")
        self._buffers(decoded)
        return []

    def resume(self, paused: Paused) -> None:
        """Goes on where the worker paused; before the first frame."""
        self.worker.applied, self.held = paused.applied, paused.version
        if paused.weights is not None:
            self.mirror = self._state.mirror_of(paused.weights)
            self._unseen = paused.unseen or Unseen(self._shared.budget)

    def paused(self) -> Paused | None:
        """The worker as it stands between two exchanges; None if it could not go on from there.

        The weights are those of the mirror, and change with the next exchange.
        """
        weights = None if self.mirror is None else self.mirror.weights
        hash_ = self._told_digest if weights is None else digest(weights)
        if hash_ is None:
            return None
        return Paused(self.worker.rank, self.worker.applied, self.held, hash_, weights, self._unseen)

    def _push(self, decoded: Decoded, desk: Desk, sent: ExitStack) -> Tensor:
        """Applies a push, and makes the frame that answers it."""
        meta = protocol.parse_meta(decoded.meta)
        density = check_push(decoded, meta, self.worker, self.mirror, self._state.layout)
        told = heard(meta.get("told"))
        values, indices = desk.packer.values(decoded), None
        length = 0.0 if self.mirror is None else length_of(values, self.mirror)
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
        if told is not None:
            self._shared.observer.told(self.worker, told)
        told_back = self._told_back(applied=made is not None)
        packer = sent.enter_context(self._shared.desks.answer())
        if self.worker.dense:
            snapshot = self._state.snapshot(desk.model)
            self.held = snapshot.version
            header = self._header(Kind.PULL, decoded.header, Codec.FLOAT32, snapshot.version)
            return packer.dense(header, told_back, snapshot.theta)
        version, selection = self._pull(density, length, desk)
        header = self._header(Kind.PULL, decoded.header, self.worker.codec_down, version)
        return packer.sparse(header, told_back, selection)

    def _told_back(self, applied: bool) -> bytes:
        answer = {"applied": applied, "active": self._shared.active(), "staleness": self.worker.staleness}
        if self._shared.observer.due(self.worker.rank):
            answer["tell"] = True
        return protocol.meta(**answer)

    def _pull(self, density: float, length: float, desk: Desk) -> tuple[int, Selection]:
        """What the worker is sent of what it has not seen, and the version that it is then at.

        At the desk it takes the place of the push, of which `length` is left: its norm, or 0 where nobody looks.
        """
        worker, mirror = self.worker, self.mirror
        assert mirror is not None
        plan = self._shared.budget.plan(self._unseen.entries(), density, worker.codec_up)
        try:
            version, selection = self._state.pull(mirror, plan.counts, plan.codec, desk.room)
        except DivergedError as error:
            # The push is applied, so it cannot be refused: the worker is to join again, with a snapshot. Of its
            # mirror other segments have been changed, which it was not told.
            self.mirror = None
            raise ProtocolError(str(error)) from None
        self.held, worker.codec_down = version, plan.codec
        self._unseen.sent(plan.counts, selection.nnz, exact=not desk.room.sampled)
        watch(self._state, worker, mirror, length)
        return version, selection

    def _request(self, decoded: Decoded) -> list[Tensor]:
        """A snapshot and the buffers; as the worker's new weights ("mirror") or only to look at."""
        meta = protocol.parse_meta(decoded.meta)
        # A push between the two is counted though the snapshot has it, rather than never.
        unseen = Unseen(self._shared.budget, torch.zeros_like(self._shared.budget.pushed))
        snapshot = self._state.snapshot()
        if meta.get("mirror"):
            self._unseen = unseen
            self.held = snapshot.version
            self.mirror = None if self.worker.dense else self._state.mirror(snapshot)
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

    def _goodbye(self, decoded: Decoded) -> Goodbye:
        meta = protocol.parse_meta(decoded.meta)
        told = heard(meta.get("told"))
        if told is not None:
            self._shared.observer.told(self.worker, told)
        outcome = meta.get("outcome")
        outcome = outcome if outcome in ("failed", "left", "paused") else "finished"
        if isinstance(meta.get("digest"), str):
            self._told_digest = meta["digest"]
        echo = self._reply(Kind.GOODBYE, decoded.header, b"")
        return Goodbye(outcome, str(meta.get("reason", ""))[:1000], echo)

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
