# SPDX-License-Identifier: Apache-2.0
"""Takes workers in and lets them go: what a server does for each, whichever way its frames come."""

from __future__ import annotations

import logging
from datetime import timedelta

from ..buffers import BufferStore
from ..config import Settings
from ..protocol import Hello, Welcome
from ..transport import Link
from .budget import Budget
from .join import check_hello
from .roster import Roster
from .session import Exchange, Session
from .state import ServerState

log = logging.getLogger(__name__)


class Reception:
    """The server without its listener and threads. Its methods may be called from any thread.

    Args:
        state: θ.
        buffers: what travels beside it.
        settings: the server's.
        dense: the kind of the server's method.
    """

    def __init__(self, state: ServerState, buffers: BufferStore, settings: Settings, dense: bool) -> None:
        self.state, self.buffers, self.settings, self._dense = state, buffers, settings, dense
        self.roster = Roster(settings, dense)
        self._shared = Exchange(
            state,
            buffers,
            Budget(state.layout, settings.density_down),
            self.roster.active,
            timedelta(seconds=settings.exchange_timeout),
        )

    def admit(self, link: Link, hello: Hello) -> tuple[Session, Welcome]:
        """A session for the worker that said `hello`, and what to answer. Raises RefusedError."""
        check_hello(hello, self.state.layout, self.settings, self._dense)
        return self.roster.admit(link, hello, self._shared)

    def dismiss(self, session: Session, outcome: str, reason: str) -> None:
        """Ends a session's place; `outcome` is a Report's."""
        worker = session.worker
        if outcome in ("died", "failed"):
            self.buffers.forget(worker.rank)
        self.roster.leave(session, outcome, reason)
        if outcome == "finished":
            log.info("worker %d finished after %d exchanges", worker.rank, worker.exchanges)
        elif outcome != "alive":
            log.warning("worker %d %s at version %d: %s", worker.rank, outcome, self.state.version, reason)
