# SPDX-License-Identifier: Apache-2.0
"""Invariant 5 over sessions: what workers were sent follows from the log of pushes and pulls, bit for bit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from dgs.room import Room
from dgs.server import ServerState
from dgs.server.state import Mirror, Snapshot
from dgs.transport import InProcessLink
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec

if TYPE_CHECKING:
    from conftest import Run

SECONDS = timedelta(seconds=5)


class Recorded(ServerState):
    """A state that keeps a log: pushes by the version they made, pulls and mirrors by worker in their order."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.pushes: dict[int, tuple[Tensor, Tensor]] = {}
        self.pulls: list[
            tuple[int, int, Tensor, Codec, Tensor, Tensor]
        ] = []  # mirror, version, counts, …, reply
        self.mirrors: list[tuple[int, Snapshot, Mirror]] = []

    def push_sparse(self, indices: Tensor, values: Tensor) -> int | None:
        kept = indices.clone(), values.clone()
        made = super().push_sparse(indices, values)
        assert made is not None
        self.pushes[made] = kept
        return made

    def pull(self, mirror: Mirror, counts: Tensor, codec: Codec, room: Room) -> tuple[int, Selection]:
        version, selection = super().pull(mirror, counts, codec, room)
        indices, values = selection.compact()
        self.pulls.append((id(mirror), version, counts, codec, indices.clone(), values.clone()))
        return version, selection

    def mirror(self, snapshot: Snapshot) -> Mirror:
        made = super().mirror(snapshot)
        self.mirrors.append((id(made), snapshot, made))  # kept, so that no other has its id
        return made


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
    final = run.now()
    run.end()
    state, log = run.state, run.state

    replayed = ServerState(state.layout, run.theta, device=torch.device("cpu"))
    mirrors = {name: replayed.mirror(snapshot) for name, snapshot, _ in log.mirrors}
    for name, snapshot, _ in log.mirrors:
        if snapshot.version == 0:
            assert torch.equal(mirrors[name].weights, run.theta)
    for version in range(1, state.version + 1):
        replayed.push_sparse(*log.pushes[version])
        for name, at, counts, kind, indices, values in log.pulls:
            if at == version:
                _, selection = replayed.pull(mirrors[name], counts, kind, replayed.room())
                again = selection.compact()
                assert torch.equal(again[0], indices) and torch.equal(again[1], values)
        for _, snapshot, _ in log.mirrors:
            if snapshot.version == version:
                assert torch.equal(snapshot.theta, replayed.snapshot().theta)
    assert torch.equal(replayed.snapshot().theta, final)
    for name, _, recorded in log.mirrors:
        assert torch.equal(mirrors[name].weights, recorded.weights)
    assert len(log.pulls) == 160 == len(log.pushes)


def test_a_slow_connection_holds_up_nobody(serve: Callable[..., Run], random: torch.Generator) -> None:
    run = serve()
    slow, quick = run.puppet(1).join(), run.puppet(2).join()
    link = run.server._roster.sessions()[0].link
    assert isinstance(link, InProcessLink)
    sending, go_on, send = threading.Event(), threading.Event(), link.send

    def crawl(frame: Tensor, timeout: timedelta) -> None:
        sending.set()
        go_on.wait(10)
        send(frame, timeout)

    link.send = crawl  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: slow.push_some(torch.Generator().manual_seed(3)))
    thread.start()
    try:
        assert sending.wait(5)
        began = time.monotonic()
        for _ in range(20):
            quick.push_some(random)
        assert time.monotonic() - began < 3
        late = run.puppet(None, world_size=None)
        quick.worker.close()
        late.join().push_some(random)
        assert run.state.version == 22 and slow.worker.sequence == 0
    finally:
        go_on.set()
        thread.join(10)
    assert slow.worker.sequence == 1
