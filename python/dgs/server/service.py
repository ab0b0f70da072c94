# SPDX-License-Identifier: Apache-2.0
"""The server: lets workers join and leave, drops those that die, and knows when the run is over."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from ..buffers import BufferStore
from ..config import Settings
from ..errors import DGSError, RefusedError, TransportError
from ..observer import Observer
from ..protocol import Welcome, refusal
from ..transport import Link, Listener
from .desks import for_cores
from .join import hear_hello
from .reception import Reception
from .record import WorkerRecord
from .session import Session
from .state import ServerState

log = logging.getLogger(__name__)

_TICK = 0.1
_JOIN_TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended: the last version, and every worker with its outcome.

    An outcome is "finished", "left" (it was asked to end early, by SIGTERM say) or "failed", the worker's own words;
    "paused" (it may come back), "died" (it left without one), or "alive" (the server was stopped before it). `state`
    is the server's state_dict at the end, for `init_server(…, state=)`.
    """

    version: int
    seconds: float
    workers: tuple[WorkerRecord, ...]
    state: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def died(self) -> list[int]:
        """Ranks of the workers that left without a goodbye."""
        return sorted(w.rank for w in self.workers if w.outcome == "died")


class Server:
    """Serves `state` to the workers that come to `listener`.

    `serve` runs in the caller's thread and owns all others: one per session, which is its join's first, and those of
    the desks. Everything is closed when it returns or raises.
    """

    def __init__(
        self,
        state: ServerState,
        buffers: BufferStore,
        settings: Settings,
        listener: Listener,
        *,
        dense: bool,
        stop: threading.Event | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.state, self.buffers, self.settings = state, buffers, settings
        self._listener = listener
        self._reception = Reception(state, buffers, settings, dense, observer, for_cores())
        self._roster = self._reception.roster
        self._threads: list[threading.Thread] = []
        self._told = stop or threading.Event()

    def active(self) -> int:
        """Workers with a session now."""
        return self._roster.active()

    def state_dict(self, *, live: bool = True) -> dict[str, Any]:
        """θ, its version, the workers' mirrors and the buffers, at one moment; may be called while pushes go on.

        If `live`, the workers that are there are in it as well as those that paused, but not those of a dense method,
        which has no mirrors.
        """
        return self._reception.state_dict(live=live)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`; before `serve`. Raises ConfigError when it is of another model."""
        self._reception.load_state_dict(state)

    def stop(self) -> None:
        """Makes `serve` end the sessions and return."""
        self._told.set()

    def serve(self) -> Report:
        """Serves until every worker has finished, none is left alive, or `stop` is called."""
        began = checked = time.monotonic()
        try:
            while not self._told.is_set():
                link = self._listener.accept(timedelta(seconds=_TICK))
                if link is not None:
                    self._start(link)
                now = time.monotonic()
                if now - checked > min(1.0, self.settings.heartbeat):
                    self._roster.drop_silent()
                    for session in self._roster.stuck():
                        self._forsake(session)
                    checked = now
                if self._roster.over(began, now, self.state.done):
                    break
        finally:
            self._close()
        seconds = time.monotonic() - began
        return Report(self.state.version, seconds, self._roster.workers(), self.state_dict())

    def _forsake(self, session: Session) -> None:
        """Leaves the thread of a session behind that waits for what will never come."""
        self._threads = [t for t in self._threads if t is not session.thread]
        self._reception.dismiss(session, "died", session.dropped)

    def _start(self, link: Link) -> None:
        self._threads = [t for t in self._threads if t.is_alive()]
        if not self._roster.begin_join(link):
            log.warning("a join was turned away: too many others are under way")
            link.close()
            return
        thread = threading.Thread(target=self._attend, args=(link,), name="dgs-session", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _attend(self, link: Link) -> None:
        try:
            joined = self._join(link)
            if joined is not None:
                self._serve(*joined)
        finally:
            self._roster.end_join(link)
            link.close()

    def _join(self, link: Link) -> tuple[Session, Welcome] | None:
        try:
            hello = hear_hello(link, self.settings.token, _JOIN_TIMEOUT)
            return self._reception.admit(link, hello)
        except RefusedError as error:
            log.warning("a worker was refused (%s): %s", error.code, error)
            self._tell(link, refusal(error.code, str(error)))
        except DGSError as error:
            log.warning("a join failed: %s", error)
        except Exception:
            log.exception("an error in the server ended a join")
        return None

    def _tell(self, link: Link, message: dict[str, object]) -> None:
        try:
            link.tell(message)
        except TransportError as error:
            log.debug("could not be told: %s", error)

    def _serve(self, session: Session, welcome: Welcome) -> None:
        link, worker = session.link, session.worker
        outcome, reason = "died", "an error in the server"
        session.thread = threading.current_thread()
        try:
            link.tell(asdict(welcome))
            link.open(welcome.session, welcome.cap, _JOIN_TIMEOUT)
            self._roster.end_join(link)
            log.info("worker %d joined (%d active, version %d)", worker.rank, self.active(), welcome.version)
            outcome, reason = session.run()
        except DGSError as error:
            outcome = "alive" if self._told.is_set() else "died"
            reason = session.dropped or str(error)
        except Exception:
            log.exception("an error in the server ended the session of worker %d", worker.rank)
        finally:
            self._reception.dismiss(session, outcome, reason)
            session.farewell()

    def _close(self) -> None:
        self._told.set()
        self._listener.close()
        for link in self._roster.links():
            link.interrupt()
        for thread in self._threads:
            thread.join(timeout=_JOIN_TIMEOUT.total_seconds())
        self._reception.close()
