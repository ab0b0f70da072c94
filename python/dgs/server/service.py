# SPDX-License-Identifier: Apache-2.0
"""The server: lets workers join and leave, drops those that die, and knows when the run is over."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from dataclasses import asdict, dataclass
from datetime import timedelta

from ..buffers import BufferStore
from ..config import CODECS, Settings
from ..errors import DGSError, LinkClosedError, RefusedError, TransportError
from ..protocol import Hello, Welcome, cap, refusal
from ..transport import Link, Listener
from .budget import Budget
from .join import check_hello, codec_down, hear_hello
from .session import Exchange, Session, WorkerRecord
from .state import ServerState

log = logging.getLogger(__name__)

_TICK = 0.1
_JOIN_TIMEOUT = timedelta(seconds=30)
_MAX_JOINING = 64


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended: the last version, and every worker with its outcome ("finished", "failed" or "died")."""

    version: int
    seconds: float
    workers: tuple[WorkerRecord, ...]

    @property
    def died(self) -> list[int]:
        """Ranks of the workers that left without a goodbye."""
        return sorted(w.rank for w in self.workers if w.outcome == "died")


class Server:
    """Serves `state` to the workers that come to `listener`.

    `serve` runs in the caller's thread and owns all others: one per session, which is its join's first. Everything is
    closed when it returns or raises.
    """

    def __init__(
        self, state: ServerState, buffers: BufferStore, settings: Settings, listener: Listener, *, dense: bool
    ) -> None:
        self.state, self.buffers, self.settings = state, buffers, settings
        self._listener, self._dense = listener, dense
        self._shared = Exchange(
            state,
            buffers,
            Budget(state.layout, settings.density_down),
            self.active,
            timedelta(seconds=settings.exchange_timeout),
        )
        self._lock = threading.Lock()  # over the four below
        self._sessions: dict[int, Session] = {}  # by rank
        self._workers: dict[str, WorkerRecord] = {}  # by identity
        self._threads: list[threading.Thread] = []
        self._joining = 0
        self._numbers = itertools.count(1)
        self._told = threading.Event()
        self._last_alive: float | None = None

    def active(self) -> int:
        """Workers with a session now."""
        with self._lock:
            return len(self._sessions)

    def stop(self) -> None:
        """Makes `serve` end the sessions and return."""
        self._told.set()

    def serve(self) -> Report:
        """Serves until every worker has finished, none is left alive, or `stop` is called."""
        began = time.monotonic()
        checked = began
        try:
            while not self._told.is_set():
                link = self._listener.accept(timedelta(seconds=_TICK))
                if link is not None:
                    self._start(link)
                now = time.monotonic()
                if now - checked > min(1.0, self.settings.heartbeat):
                    self._drop_silent()
                    checked = now
                if self._over(began, now):
                    break
        finally:
            self._close()
        return Report(self.state.version, time.monotonic() - began, tuple(self._workers.values()))

    def _start(self, link: Link) -> None:
        with self._lock:
            self._threads = [t for t in self._threads if t.is_alive()]
            if self._joining >= _MAX_JOINING:
                log.warning("a join was turned away: %d others are under way", self._joining)
                link.close()
                return
            self._joining += 1
            thread = threading.Thread(target=self._attend, args=(link,), name="dgs-session", daemon=True)
            self._threads.append(thread)
        thread.start()

    def _attend(self, link: Link) -> None:
        session = None
        try:
            try:
                session = self._join(link)
            finally:
                with self._lock:
                    self._joining -= 1
            if session is not None:
                self._serve(session)
        finally:
            link.close()

    def _join(self, link: Link) -> Session | None:
        try:
            hello = hear_hello(link, self.settings.token, _JOIN_TIMEOUT)
            check_hello(hello, self.state.layout, self.settings, self._dense)
            session, welcome = self._admit(link, hello)
        except RefusedError as error:
            log.warning("a worker was refused (%s): %s", error.code, error)
            self._tell(link, refusal(error.code, str(error)))
            return None
        except DGSError as error:
            log.warning("a join failed: %s", error)
            return None
        try:
            link.tell(asdict(welcome))
            link.open(welcome.session, welcome.cap, _JOIN_TIMEOUT)
        except TransportError as error:
            self._leave(session, "died", f"while joining: {error}")
            return None
        log.info("worker %d joined (%d active, version %d)", welcome.rank, self.active(), welcome.version)
        return session

    def _tell(self, link: Link, message: dict[str, object]) -> None:
        try:
            link.tell(message)
        except TransportError as error:
            log.debug("could not be told: %s", error)

    def _admit(self, link: Link, hello: Hello) -> tuple[Session, Welcome]:
        """Takes the worker's place among the sessions, or RefusedError."""
        with self._lock:
            if len(self._sessions) >= self.settings.max_workers:
                raise RefusedError("full", f"the server has its {self.settings.max_workers} workers")
            rank = hello.rank or next(r for r in itertools.count(1) if r not in self._sessions)
            other = self._sessions.get(rank)
            if other is not None:
                self._displace(other, hello, rank)
            worker = self._workers.get(hello.identity)
            if worker is None:
                down = codec_down(hello, self.settings)
                worker = WorkerRecord(
                    hello.identity, rank, CODECS[hello.codec], down, self._dense, hello.sequence
                )
                self._workers[hello.identity] = worker
            else:
                log.warning("worker %d joined again", rank)
            worker.rank, worker.outcome, worker.reason = rank, "alive", ""
            session = self._sessions[rank] = Session(link, worker, self._shared)
            return session, self._welcome(worker)

    def _displace(self, other: Session, hello: Hello, rank: int) -> None:
        """A worker that comes back takes its old session's place; another of the same rank does if that is silent."""
        try:
            alive = other.link.silence() < 3 * self.settings.heartbeat
        except LinkClosedError:
            alive = False
        if other.worker.identity != hello.identity and alive:
            raise RefusedError("rank", f"rank {rank} is taken by a worker that is alive: give each its own")
        if other.worker.identity != hello.identity:
            other.worker.outcome, other.worker.reason = "died", "silent, and another took its rank"
        other.link.interrupt()

    def _welcome(self, worker: WorkerRecord) -> Welcome:
        state, world = self.state, self.settings.world_size
        return Welcome(
            session=f"{next(self._numbers)}-{worker.identity[:8]}",
            rank=worker.rank,
            index=worker.rank - 1,
            workers=world - 1 if world else max(len(self._sessions), worker.rank),
            version=state.version,
            max_version=state.max_version,
            cap=cap(state.layout.numel, self.buffers.nbytes),
            codec=worker.codec_down.name.lower(),
            applied=worker.applied,
        )

    def _serve(self, session: Session) -> None:
        worker = session.worker
        try:
            session.run()
        except DGSError as error:
            self._leave(session, "died", worker.reason or str(error))
        except Exception:
            log.exception("an error in the server ended the session of worker %d", worker.rank)
            self._leave(session, "died", "an error in the server")
        else:
            self._leave(session, worker.outcome, worker.reason)

    def _leave(self, session: Session, outcome: str, reason: str) -> None:
        worker = session.worker
        with self._lock:
            mine = self._sessions.get(worker.rank) is session
            if mine:
                del self._sessions[worker.rank]
                worker.outcome, worker.reason = outcome, reason
            self._last_alive = time.monotonic()
        if not mine:
            return  # displaced by a later session
        if outcome == "finished":
            log.info("worker %d finished after %d exchanges", worker.rank, worker.exchanges)
        elif not self._told.is_set():
            log.warning("worker %d %s at version %d: %s", worker.rank, outcome, self.state.version, reason)

    def _drop_silent(self) -> None:
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            try:
                silence = session.link.silence()
            except LinkClosedError as error:
                log.debug("worker %d: %s", session.worker.rank, error)
                continue
            if silence > self.settings.heartbeat_timeout:
                session.worker.reason = f"no sign of life for {silence:.1f} s"
                session.link.interrupt()

    def _over(self, began: float, now: float) -> bool:
        with self._lock:
            alive, joining = len(self._sessions), self._joining
            finished = {w.rank for w in self._workers.values() if w.outcome == "finished"}
            last = self._last_alive
        if alive or joining:
            return False
        settings = self.settings
        if last is None:
            late = now - began > settings.join_timeout
            if late:
                log.warning("no worker came within %g s", settings.join_timeout)
            return late
        if settings.world_size is None:
            return self.state.done
        if len(finished) >= settings.world_size - 1:
            return True
        if now - last > settings.grace:
            log.warning("no worker has been alive for %g s; %d finished", settings.grace, len(finished))
            return True
        return False

    def _close(self) -> None:
        self._told.set()
        self._listener.close()
        with self._lock:
            sessions, threads = list(self._sessions.values()), list(self._threads)
        for session in sessions:
            session.link.interrupt()
        for thread in threads:
            thread.join(timeout=_JOIN_TIMEOUT.total_seconds())
