# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in a wait of gloo's: what was waited for goes on, and the link is as good as before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from dgs.transport import GlooLink
from dgs.transport.gloo import FIRST

if TYPE_CHECKING:
    from conftest import Meeting

SECONDS = timedelta(seconds=30)
WAITS = ("first message of a push", "rest of a push", "first message of a pull", "rest of a pull")


class _Breaking:
    """A gloo group of which one wait, counted from 0, raises KeyboardInterrupt: before it waits, or behind."""

    def __init__(self, group: Any, number: int, behind: bool) -> None:
        self._group, self.left, self.behind = group, number, behind

    def send(self, *what: Any) -> _Work:
        return _Work(self, self._group.send(*what))

    def recv(self, *what: Any) -> _Work:
        return _Work(self, self._group.recv(*what))


class _Work:
    def __init__(self, group: _Breaking, work: Any) -> None:
        self._group, self._work = group, work

    def is_completed(self) -> bool:
        return bool(self._work.is_completed())

    def wait(self, limit: timedelta) -> None:
        self._group.left -= 1
        broken = self._group.left == -1
        if broken and not self._group.behind:
            raise KeyboardInterrupt
        self._work.wait(limit)
        if broken:
            raise KeyboardInterrupt


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("wait", WAITS)
def test_what_was_broken_off_goes_on(
    gloo_meeting: Meeting, frame: Callable[..., Tensor], wait: str, behind: bool
) -> None:
    worker, server = gloo_meeting.open(cap=3 * FIRST)
    push, pull, goodbye, echo = frame(1, 2 * FIRST), frame(2, 3 * FIRST), frame(3, 100), frame(4, 100)
    assert isinstance(worker, GlooLink)
    worker._group = _Breaking(worker._group, WAITS.index(wait), behind)

    def serve() -> list[Tensor]:
        came = []
        for answer in (pull, echo):
            came.append(server.receive(SECONDS).clone())
            server.send(answer, SECONDS)
        return came

    served = gloo_meeting.pool.submit(serve)
    with pytest.raises(KeyboardInterrupt):
        worker.send(push, SECONDS)
        worker.receive(SECONDS)
    for got in worker.ask(goodbye, SECONDS):
        if torch.equal(got, echo):
            break
        assert torch.equal(got, pull)
    assert all(torch.equal(a, b) for a, b in zip(served.result(30), (push, goodbye), strict=True))


def test_a_frame_whose_wait_was_broken_off_is_the_next_one(
    gloo_meeting: Meeting, frame: Callable[..., Tensor]
) -> None:
    worker, server = gloo_meeting.open(cap=3 * FIRST)
    assert isinstance(worker, GlooLink)
    sent = [frame(1, 2 * FIRST), frame(2, 10)]
    worker._group = _Breaking(worker._group, 1, behind=True)
    theirs = gloo_meeting.pool.submit(lambda: [server.send(f, SECONDS) for f in sent])
    with pytest.raises(KeyboardInterrupt):
        worker.receive(SECONDS)
    assert all(torch.equal(worker.receive(SECONDS), f) for f in sent)
    theirs.result(30)
