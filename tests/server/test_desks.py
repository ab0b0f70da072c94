# SPDX-License-Identifier: Apache-2.0
"""Frames are worked on at a few desks, whoever their sessions are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import torch

from dgs.layout import Layout
from dgs.server import ServerState
from dgs.server.desks import Desk, Desks, for_cores

if TYPE_CHECKING:
    from conftest import Run


def _desks(count: int) -> Desks:
    state = ServerState(Layout([("w", (10,))]), torch.zeros(10), device=torch.device("cpu"))
    return Desks(state, count, torch.tensor([4]))


def test_no_more_work_is_under_way_than_there_are_desks() -> None:
    desks, inside, most, both = _desks(2), [0], [0], threading.Barrier(2, timeout=30)
    count = threading.Lock()

    def work(desk: Desk) -> Desk:
        with count:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        both.wait()  # passed by two at a time: so many do work at once, and none is alone
        with count:
            inside[0] -= 1
        return desk

    with ThreadPoolExecutor(8) as sessions:
        used = list(sessions.map(lambda _: desks.run(work), range(16)))
    desks.close()
    assert most == [2] and len(set(used)) == 2


def test_what_goes_wrong_at_a_desk_is_the_sessions_and_the_desk_goes_on() -> None:
    desks = _desks(1)

    def fail(desk: Desk) -> None:
        raise ValueError("one")

    for _ in range(3):
        with pytest.raises(ValueError, match="one"):
            desks.run(fail)
    assert desks.run(lambda desk: desk.room.sampled) is False
    desks.close()


def test_without_threads_the_caller_works_at_the_one_desk() -> None:
    desks = _desks(0)
    here = [desks.run(lambda desk: (desk, threading.get_ident())) for _ in range(2)]
    assert here[0] == here[1] and here[0][1] == threading.get_ident()
    desks.close()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Pretends that there are so many cores, and that torch uses so many threads."""

    def pretend(cores: int, threads: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    return pretend


@pytest.mark.parametrize(
    ("cores", "threads", "count"),
    [(1, 1, 1), (8, 1, 8), (8, 2, 4), (8, 3, 2), (8, 8, 1), (8, 9, 1), (2, 64, 1)],
)
def test_kernels_at_all_desks_are_no_more_than_cores(
    machine: Callable[[int, int], None], cores: int, threads: int, count: int
) -> None:
    machine(cores, threads)
    assert for_cores() == count
    assert count * threads <= max(cores, threads), "one desk's kernel has the threads that torch was given"


def test_the_desks_threads_are_as_many_and_end_with_the_server(
    serve: Callable[..., Run], random: torch.Generator, machine: Callable[[int, int], None]
) -> None:
    machine(6, 2)
    run = serve(world_size=None)
    pool = run.server._reception._shared.desks._pool
    assert pool is not None and pool._max_workers == 3
    puppets = [run.puppet(None).join() for _ in range(12)]
    for puppet in puppets:
        puppet.push_some(random)
    threads = set(pool._threads)
    assert 1 <= len(threads) <= 3 and threads <= set(threading.enumerate())
    run.end()
    assert not threads & set(threading.enumerate())


def test_a_desks_room_is_as_large_as_pulls_may_become_and_cut_to_each() -> None:
    desks = _desks(0)
    room = desks.run(lambda desk: desk.room)
    first = room.of(torch.tensor([1]))
    assert first.indices.numel() == 1
    most = room.of(torch.tensor([4]))
    assert most.indices.numel() == 4 and most.indices.data_ptr() == first.indices.data_ptr()


def test_of_many_answers_at_once_the_room_of_a_few_is_kept() -> None:
    desks = _desks(0)
    for _ in range(2):
        with ExitStack() as sending:
            packers = [sending.enter_context(desks.answer()) for _ in range(5)]
            assert len(set(packers)) == 5
    assert len(desks._idle) == 1 and desks._idle[0] in packers
