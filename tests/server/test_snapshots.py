# SPDX-License-Identifier: Apache-2.0
"""Many joiners at once do not make the server hold as many models."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor
from waiting import until

from dgs.errors import LinkTimeoutError
from dgs.server.exchange import SNAPSHOTS
from dgs.transport import InProcessLink
from dgs_ext.wire import Kind, parse_header

if TYPE_CHECKING:
    from conftest import Run

JOINERS = SNAPSHOTS + 3


class SlowSnapshots:
    """Holds every snapshot that is sent, and counts those that are under way at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.under_way = self.most = 0
        self.lost = threading.Semaphore(0)  # so many are to fail, as one does whose worker has died
        self.arrive = threading.Event()
        self._lock, send = threading.Lock(), InProcessLink.send

        def slowly(link: InProcessLink, frame: Tensor, timeout: timedelta) -> None:
            if parse_header(frame).kind == Kind.SNAPSHOT:
                self._hold()
            send(link, frame, timeout)

        monkeypatch.setattr(InProcessLink, "send", slowly)

    def _hold(self) -> None:
        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            for _ in range(6000):
                if self.arrive.wait(0.01):
                    return
                if self.lost.acquire(blocking=False):
                    raise LinkTimeoutError("its worker takes nothing")
        finally:
            with self._lock:
                self.under_way -= 1


def test_snapshots_under_way_are_a_few_whoever_joins_and_whoever_dies(
    serve: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = serve(world_size=None)
    working = run.puppet(None).join()
    slow = SlowSnapshots(monkeypatch)
    puppets = [run.puppet(None) for _ in range(JOINERS)]
    with ThreadPoolExecutor(JOINERS) as threads:
        try:
            joining = [threads.submit(puppet.join) for puppet in puppets]
            until(lambda: sum(s._turn.locked() for s in run.server._roster.sessions()) == JOINERS)
            until(lambda: slow.under_way == SNAPSHOTS)
            working.push_some(torch.Generator().manual_seed(0))  # no desk waits with the joiners
            for _ in range(2):
                slow.lost.release()
            until(lambda: sum(future.done() for future in joining) == 2)
            until(lambda: slow.under_way == SNAPSHOTS, "who waited has the place of who died")
        finally:
            slow.arrive.set()
    assert sum(future.exception() is None for future in joining) == JOINERS - 2
    assert slow.most == SNAPSHOTS
