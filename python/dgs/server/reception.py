# SPDX-License-Identifier: Apache-2.0
"""Takes workers in and lets them go: what a server does for each, whichever way its frames come."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..buffers import BufferStore
from ..config import Settings
from ..errors import ConfigError
from ..observer import Observer
from ..protocol import Hello, Welcome
from ..transport import Link
from . import pauses
from .budget import Budget
from .desks import Desks
from .exchange import Shared
from .join import check_hello
from .roster import Roster
from .session import Session
from .state import ServerState, Snapshot

log = logging.getLogger(__name__)


class Reception:
    """The server without its listener and threads. Its methods may be called from any thread.

    Args:
        state: θ.
        buffers: what travels beside it.
        settings: the server's.
        dense: the kind of the server's method.
        observer: hears of joins, exchanges and leaves.
        desks: how many frames are worked on at a time, each in a thread; 0: in the caller's, which must be one.
    """

    def __init__(
        self,
        state: ServerState,
        buffers: BufferStore,
        settings: Settings,
        dense: bool,
        observer: Observer | None = None,
        desks: int = 0,
    ) -> None:
        self.state, self.buffers, self.settings, self._dense = state, buffers, settings, dense
        self.roster = Roster(settings, dense)
        budget = Budget(state.layout, settings.density_down, settings.codec_pulls, settings.budget_down)
        self._shared = Shared(
            state,
            buffers,
            budget,
            self.roster.active,
            timedelta(seconds=settings.exchange_timeout),
            Desks(state, desks, budget.most(settings.density, settings.codec_up)),
            observer=observer or Observer(),
        )

    def admit(self, link: Link, hello: Hello) -> tuple[Session, Welcome]:
        """A session for the worker that said `hello`, and what to answer. Raises RefusedError."""
        check_hello(hello, self.state.layout, self.settings, self._dense)
        session, welcome = self.roster.admit(link, hello, self._shared)
        self._shared.observer.joined(session.worker)
        return session, welcome

    def close(self) -> None:
        """Frees the desks' threads; nothing is answered any more."""
        self._shared.desks.close()

    def state_dict(self, *, live: bool = True) -> dict[str, Any]:
        """θ at one version, every worker's mirror between two of its exchanges, and the buffers.

        Numbers, strings and tensors on the CPU alone, for dgs.checkpoint.save. It holds the workers that paused and,
        if `live`, those that are there.
        """
        with self._shared.gate.exclusive():
            snapshot = self.state.snapshot()
            there = self.roster.sessions() if live else []
            here = [paused for s in there if (paused := s.exchange.paused()) is not None]
            workers = {p.rank: p.saved() for p in (*self.roster.pauses.all(), *here)}
            buffers = self.buffers.state_dict()
        return {
            "fingerprint": f"{self.state.layout.fingerprint:016x}",
            "version": snapshot.version,
            "theta": snapshot.theta,
            "workers": workers,
            "buffers": buffers,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave, before any worker comes: all that it holds count as paused.

        Raises ConfigError when it is of another model.
        """
        layout = self.state.layout
        if state.get("fingerprint") != f"{layout.fingerprint:016x}":
            raise ConfigError(
                "state: it must be the state_dict of a server of this model, got one of other tensors or buffers"
            )
        budget = self._shared.budget
        found = [pauses.loaded(int(rank), saved, budget) for rank, saved in state["workers"].items()]
        self.state.load(Snapshot(int(state["version"]), state["theta"]))
        self.buffers.load_state_dict(state["buffers"])
        for paused in found:
            self.roster.pauses.keep(paused)

    def dismiss(self, session: Session, outcome: str, reason: str) -> None:
        """Ends a session's place, once; `outcome` is a Report's."""
        if session.dismissed():
            return
        worker = session.worker
        if outcome in ("died", "failed"):
            self.buffers.forget(worker.rank)
        self.roster.leave(session, outcome, reason)
        self._shared.observer.left(worker)
        if outcome in ("finished", "paused"):
            log.info("worker %d %s after %d exchanges", worker.rank, outcome, worker.exchanges)
        elif outcome != "alive":
            log.warning("worker %d %s at version %d: %s", worker.rank, outcome, self.state.version, reason)
