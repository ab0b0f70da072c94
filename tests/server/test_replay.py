# SPDX-License-Identifier: Apache-2.0
"""Invariant 5 over sessions: what workers were sent follows from the log of pushes and pulls, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import torch
from replay import Recorded, replay
from torch import Tensor

from dgs.transport import InProcessLink

if TYPE_CHECKING:
    from conftest import Run

SECONDS = timedelta(seconds=30)


@pytest.mark.parametrize("codec", ["float32", "bfloat16"])
def test_a_log_replays_bitwise(serve: Callable[..., Run], codec: str) -> None:
    run = serve(Recorded, world_size=5, codec_down=codec)
    assert isinstance(run.state, Recorded)

    def work(rank: int) -> None:
        random = torch.Generator().manual_seed(rank)
        puppet = run.puppet(rank).join()
        for i in range(40):
            if i == 20 and rank == 2:
                puppet.w = puppet.worker.restart().theta.clone()
            puppet.push_some(random)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    run.end()
    assert [at for _, at, *_ in run.state.pulls].count(0) == 0 and run.state.version == len(
        run.state.pulls
    ) == 160
    assert all(torch.equal(s.theta, run.theta) for s in run.state.snapshots if s.version == 0)
    replay(run.state)


def test_a_slow_connection_holds_up_nobody(serve: Callable[..., Run], random: torch.Generator) -> None:
    run = serve()
    slow, quick = run.puppet(1).join(), run.puppet(2).join()
    link = run.server._roster.sessions()[0].link
    assert isinstance(link, InProcessLink)
    sending, go_on, send = threading.Event(), threading.Event(), link.send

    def crawl(frame: Tensor, timeout: timedelta) -> None:
        sending.set()
        go_on.wait(60)
        send(frame, timeout)

    link.send = crawl  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: slow.push_some(torch.Generator().manual_seed(3)))
    thread.start()
    try:
        assert sending.wait(30)
        for _ in range(20):
            quick.push_some(random)
        assert not go_on.is_set()
        late = run.puppet(None, world_size=None)
        quick.worker.close()
        late.join().push_some(random)
        assert run.state.version == 22 and slow.worker.sequence == 0
    finally:
        go_on.set()
        thread.join(30)
    assert slow.worker.sequence == 1
