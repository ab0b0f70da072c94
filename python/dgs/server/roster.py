# SPDX-License-Identifier: Apache-2.0
"""Who is there: joins under way, the sessions by rank, and what is known of every worker that ever came."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from dataclasses import replace

from ..config import CODECS, Settings
from ..errors import LinkClosedError, RefusedError
from ..protocol import Hello, Welcome, cap
from ..transport import Link
from .exchange import Shared
from .join import codecs_of_pulls
from .pauses import Paused, Pauses
from .record import WorkerRecord
from .session import Session

log = logging.getLogger(__name__)

_MAX_JOINING = 64
_BEATS_ALIVE = 3  # heartbeats that a worker may miss before another may take its rank
_DISPLACE_TIMEOUT = 10.0  # seconds for the session of a worker that comes back to end


class Roster:
    """The workers of a run. Its methods may be called from any thread.

    Args:
        settings: the server's.
        dense: the kind of the server's method.
    """

    def __init__(self, settings: Settings, dense: bool) -> None:
        self._settings, self._dense = settings, dense
        self._lock = threading.Lock()  # over all below
        self._joining: set[Link] = set()
        self._sessions: dict[int, Session] = {}  # by rank
        self._workers: dict[str, WorkerRecord] = {}  # by identity
        self.pauses = Pauses()
        self._numbers = itertools.count(1)
        self._last_alive: float | None = None

    def active(self) -> int:
        """Workers with a session now."""
        with self._lock:
            return len(self._sessions)

    def sessions(self) -> list[Session]:
        with self._lock:
            return list(self._sessions.values())

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Every worker that was ever admitted, in the order of their coming."""
        with self._lock:
            return tuple(self._workers.values())

    def links(self) -> list[Link]:
        """The links of all joins and sessions."""
        with self._lock:
            return [*self._joining, *(s.link for s in self._sessions.values())]

    def begin_join(self, link: Link) -> bool:
        """Counts a join as under way; False when there are too many."""
        with self._lock:
            if len(self._joining) >= _MAX_JOINING:
                return False
            self._joining.add(link)
            return True

    def end_join(self, link: Link) -> None:
        with self._lock:
            self._joining.discard(link)

    def admit(self, link: Link, hello: Hello, shared: Shared) -> tuple[Session, Welcome]:
        """Gives the worker its place among the sessions. Raises RefusedError."""
        for other in self.sessions():
            if other.worker.identity == hello.identity or other.worker.rank == hello.rank:
                self._displace(other, hello)
        with self._lock:
            paused = self.pauses.find(hello.rank, hello.digest)
            rank = self._free_rank(hello, paused)
            if paused is not None and paused.rank != rank:
                paused = None
            worker = self._record(hello, rank, paused)
            worker.rank, worker.outcome, worker.reason = rank, "alive", ""
            session = self._sessions[rank] = Session(link, worker, shared)
            if paused is not None:
                session.exchange.resume(paused)
            self.pauses.drop(rank)
            return session, self._welcome(worker, shared, paused)

    def _record(self, hello: Hello, rank: int, paused: Paused | None) -> WorkerRecord:
        """What is known of the worker that says `hello`; one that paused at its rank is it, or will not come back."""
        worker = self._workers.get(hello.identity)
        if worker is not None:
            log.warning("worker %d joins again", rank)
            return worker
        down = codecs_of_pulls(hello, self._settings)[0]
        made = WorkerRecord(hello.identity, rank, CODECS[hello.codec], down, self._dense, hello.sequence)
        for before in [w for w in self._workers.values() if w.rank == rank and w.outcome == "paused"]:
            if paused is None:
                before.outcome = "left"
            else:
                del self._workers[before.identity]
                made = replace(before, identity=hello.identity, codec_up=made.codec_up, codec_down=down)
        self._workers[hello.identity] = made
        return made

    def _displace(self, other: Session, hello: Hello) -> None:
        """Ends a session whose place is asked for, if its worker is the same that asks, or silent.

        Returns when that session can apply nothing more: what it has applied is then known for good.
        """
        if other.worker.identity == hello.identity:
            other.drop("it joined again")
        elif _silence(other) >= _BEATS_ALIVE * self._settings.heartbeat:
            other.drop("silent, and another took its rank")
        else:
            raise RefusedError(
                "rank", f"rank {hello.rank} is taken by a worker that is alive: give each its own"
            )
        other.ended.wait(_DISPLACE_TIMEOUT)

    def _free_rank(self, hello: Hello, paused: Paused | None) -> int:
        settings = self._settings
        if len(self._sessions) >= settings.max_workers:
            raise RefusedError("full", f"the server has its {settings.max_workers} workers")
        known = self._workers.get(hello.identity)
        rank = hello.rank or (known.rank if known else paused.rank if paused else 0)
        if hello.rank is None and (not rank or rank in self._sessions):
            rank = self._unused_rank()
        if rank in self._sessions:
            raise RefusedError(
                "rank", f"rank {rank} is taken by a worker that is only just leaving: try again"
            )
        if settings.world_size is not None and rank >= settings.world_size:
            raise RefusedError(
                "full", f"all {settings.world_size - 1} ranks of a world of {settings.world_size} are taken"
            )
        return rank

    def _unused_rank(self) -> int:
        """The lowest rank without a session, and if there is one, whose worker has neither finished nor paused."""
        away = {w.rank for w in self._workers.values() if w.outcome == "finished"} | self.pauses.ranks()
        fresh = next(r for r in itertools.count(1) if r not in self._sessions and r not in away)
        if self._settings.world_size is None or fresh < self._settings.world_size:
            return fresh
        return next(r for r in itertools.count(1) if r not in self._sessions)

    def _welcome(self, worker: WorkerRecord, shared: Shared, paused: Paused | None) -> Welcome:
        state, world = shared.state, self._settings.world_size
        return Welcome(
            session=f"{next(self._numbers)}-{worker.identity[:8]}",
            rank=worker.rank,
            index=worker.rank - 1,
            workers=world - 1 if world else max(len(self._sessions), worker.rank),
            version=state.version,
            max_version=state.max_version,
            cap=cap(state.layout.numel, shared.buffers.nbytes),
            codec=worker.codec_down.name.lower(),
            applied=worker.applied,
            resumed=None if paused is None else paused.version,
        )

    def leave(self, session: Session, outcome: str, reason: str) -> None:
        """Takes the session's worker off the list of those alive."""
        worker = session.worker
        stays = outcome in ("paused", "alive")  # alive: the server was stopped before it
        paused = session.exchange.paused() if stays else None
        with self._lock:
            if paused is not None:
                self.pauses.keep(paused)
            if self._sessions.get(worker.rank) is session:
                del self._sessions[worker.rank]
            worker.outcome, worker.reason = outcome, reason
            self._last_alive = time.monotonic()
        session.ended.set()

    def drop_silent(self) -> None:
        """Ends the sessions whose workers have not been heard for `heartbeat_timeout`."""
        for session in self.sessions():
            silence = _silence(session)
            if self._settings.heartbeat_timeout < silence < float("inf"):
                session.drop(f"no sign of life for {silence:.1f} s")

    def stuck(self) -> list[Session]:
        """Sessions that were dropped and do not end; they apply nothing any more."""
        return [session for session in self.sessions() if session.give_up()]

    def over(self, began: float, now: float, done: bool) -> bool:
        """Whether the run is: by the rule of `init_server`."""
        with self._lock:
            busy = bool(self._sessions or self._joining)
            finished = len({w.rank for w in self._workers.values() if w.outcome in ("finished", "paused")})
            last = self._last_alive
        if busy:
            return False
        settings = self._settings
        if last is None:
            late = now - began > settings.join_timeout
            if late:
                log.warning("no worker came within %g s", settings.join_timeout)
            return late
        if settings.world_size is None:
            return done
        if finished >= settings.world_size - 1:
            return True
        if now - last > settings.grace:
            log.warning("no worker has been alive for %g s; %d finished or paused", settings.grace, finished)
            return True
        return False


def _silence(session: Session) -> float:
    """Seconds since the session's worker was last heard; infinite for a link that is closed already."""
    try:
        return session.link.silence()
    except LinkClosedError:
        return float("inf")
