# SPDX-License-Identifier: Apache-2.0
"""The server of a simulation: the production server's sessions, called frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Settings
from ..errors import DGSError, RefusedError
from ..layout import trainable
from ..methods import METHODS
from ..protocol import refusal
from ..server import ModelSnapshot, ServerState, WorkerRecord, layout_of, store_of
from ..server.evaluation import model_snapshot
from ..server.join import Challenge
from ..server.reception import Reception
from ..server.session import Session
from .links import ServerEnd, WorkerEnd

_AT_ONCE = timedelta(0)


class Host:
    """Serves the parameters of `net` to workers of the same thread.

    Args:
        net: the model, with its initial weights.
        settings: the server's.
    """

    def __init__(self, net: nn.Module, settings: Settings) -> None:
        layout = layout_of(net, settings)
        with torch.no_grad():
            theta = torch.cat([p.detach().float().reshape(-1).cpu() for _, p in trainable(net)])
        self.state = ServerState(
            layout,
            theta,
            device=torch.device("cpu"),
            max_version=settings.max_version,
            sampled=settings.sampled,
        )
        self.buffers = store_of(net, layout, settings)
        self._settings = settings
        self._reception = Reception(self.state, self.buffers, settings, METHODS[settings.mode].dense)

    def dial(self) -> WorkerEnd:
        """A worker's end of a new link."""
        desk = _Desk(self._reception, self._settings.token)
        return WorkerEnd(desk.meet, desk.deliver)

    def snapshot(self) -> ModelSnapshot:
        """The server's model now."""
        return model_snapshot(self.state, self.buffers)

    @property
    def workers(self) -> tuple[WorkerRecord, ...]:
        """Every worker that ever joined, and how it ended."""
        return self._reception.roster.workers()

    @property
    def active(self) -> int:
        return self._reception.roster.active()

    def lose(self, rank: int, reason: str) -> None:
        """The worker of that rank has died."""
        for session in self._reception.roster.sessions():
            if session.worker.rank == rank:
                session.link.close()
                self._reception.dismiss(session, "died", reason)


class _Desk:
    """The server's side of one link: a join, then frames, as dgs.server.service does in a thread."""

    def __init__(self, reception: Reception, token: str | None) -> None:
        self._reception, self._token = reception, token
        self._end = ServerEnd()
        self._challenge: Challenge | None = None
        self._session: Session | None = None

    def meet(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The answer to a message of the join; a refusal is one, too."""
        try:
            if self._challenge is None:
                self._challenge = Challenge(message, self._token)
                return [self._challenge.message]
            hello = self._challenge.hello(message)
            self._session, welcome = self._reception.admit(self._end, hello)
        except RefusedError as error:
            return [refusal(error.code, str(error))]
        self._end.open(welcome.session, welcome.cap, _AT_ONCE)
        return [asdict(welcome)]

    def deliver(self, frame: Tensor) -> list[Tensor] | None:
        """The replies to a frame; None if the session has ended with it, or before."""
        session = self._session
        if session is None or self._end.closed:
            return None
        try:
            told = session.handle(frame)
        except DGSError as error:
            told = "died", str(error)
        if told is not None:
            self._reception.dismiss(session, *told)
            session.farewell()
        replies = self._end.take()
        if told is not None:
            self._end.close()
        return replies if told is None or told[0] != "died" else None
