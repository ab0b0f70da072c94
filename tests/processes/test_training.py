# SPDX-License-Identifier: Apache-2.0
"""Real processes over gloo: they train, and whoever dies, freezes or comes late does not stop the others."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Node

Start = Callable[..., "Node"]


def test_processes_train_together(start: Start, port: int, listens: Callable[[], bool]) -> None:
    """One closes, one joins halfway, one ends without close(); all of them have finished."""
    server = start("server", port=port, world_size=4, buffers_every=5)
    first = start("worker", port=port, rank=1, world_size=4, options={"steps": 150, "pause": 0.01})
    unclosed = start("worker", port=port, rank=2, world_size=4, options={"steps": 60, "close": False})
    joined = first.event("joined")
    assert joined["version"] > 0 or joined["digest"] == server.event("serving")["digest"], (
        "the first gradient is taken at the server's weights and buffers"
    )
    unclosed.event("done")
    late = start("worker", port=port, rank=3, world_size=4, options={"steps": 60})
    assert late.event("joined")["version"] >= 60
    assert [n.ends() for n in (first, unclosed, late, server)] == [0, 0, 0, 0]
    report = server.event("report")
    assert report["workers"] == [[1, "finished"], [2, "finished"], [3, "finished"]]
    assert report["version"] == 270
    assert report["after"] < report["before"] / 3
    assert report["mean"] != 0.0, "the workers' batch-norm statistics came"
    assert not listens(), "the port is free again"


@pytest.mark.parametrize("repeat", range(2))
def test_a_killed_worker_stops_nobody(start: Start, port: int, repeat: int) -> None:
    when = random.Random(repeat)
    server = start("server", port=port, world_size=6, grace=1.0)
    workers = [
        start("worker", port=port, rank=rank, world_size=6, options={"steps": 120 if rank < 4 else 100_000})
        for rank in range(1, 6)
    ]
    for worker in workers:
        worker.event("step")
    for worker in workers[3:]:
        time.sleep(when.random() / 4)
        worker.signal(signal.SIGKILL)
    assert [w.ends() for w in workers] == [0, 0, 0, -9, -9]
    assert server.ends() == 0
    report = server.event("report")
    assert report["workers"] == [[1, "finished"], [2, "finished"], [3, "finished"], [4, "died"], [5, "died"]]
    assert report["version"] > 360 and report["after"] < report["before"]
    for rank in (4, 5):
        assert f"WARNING worker {rank} died at version" in server.output


def test_a_frozen_worker_is_dropped_and_rejoins(start: Start, port: int) -> None:
    settings = {"port": port, "world_size": 3, "heartbeat": 0.1, "heartbeat_timeout": 1.5}
    server = start("server", **settings)
    frozen = start("worker", rank=1, options={"steps": 200, "pause": 0.01}, **settings)
    other = start("worker", rank=2, options={"steps": 400, "pause": 0.01}, **settings)
    frozen.event("step")
    other.event("step")
    frozen.signal(signal.SIGSTOP)
    server.says("worker 1 died at version")
    assert "no sign of life for" in server.output
    before = other.event("step")["step"]
    time.sleep(0.3)
    assert other.event("step")["step"] > before, "the other has not noticed"
    frozen.signal(signal.SIGCONT)
    frozen.says("with a fresh snapshot")
    server.says("worker 1 joins again")
    assert [n.ends() for n in (frozen, other, server)] == [0, 0, 0]
    report = server.event("report")
    assert report["workers"] == [[1, "finished"], [2, "finished"]] and report["version"] == 600
    assert "WARNING joined the server again at version" in frozen.output


def test_a_worker_that_fails_says_so(start: Start, port: int) -> None:
    server = start("server", port=port, world_size=2, grace=0.5)
    worker = start("worker", port=port, rank=1, options={"raise_at": 3})
    assert worker.ends() == 1 and server.ends() == 0
    assert "RuntimeError: as the test asked" in worker.output
    report = server.event("report")
    assert report["workers"] == [[1, "failed"]] and "as the test asked" in report["reasons"][0]
    assert "worker 1 failed at version 4" in server.output


def test_max_version_ends_the_run_for_all(start: Start, port: int) -> None:
    settings = {"port": port, "max_version": 100, "mode": "asgd"}
    server = start("server", world_size=3, **settings)
    workers = [start("worker", rank=rank, options={"steps": 5000}, **settings) for rank in (1, 2)]
    assert [n.ends() for n in (*workers, server)] == [0, 0, 0]
    assert [w.event("done")["version"] for w in workers] == [100, 100]
    assert server.event("report")["version"] == 100


def test_a_killed_server_is_an_error_at_the_workers(start: Start, port: int) -> None:
    server = start("server", port=port, world_size=3)
    workers = [
        start("worker", port=port, rank=rank, rejoin_timeout=1.0, options={"steps": 100_000})
        for rank in (1, 2)
    ]
    for worker in workers:
        worker.event("step")
    server.signal(signal.SIGKILL)
    began = time.monotonic()
    assert [w.ends(20) for w in workers] == [1, 1]
    assert time.monotonic() - began < 10
    for worker in workers:
        assert "ServerLostError: the server is lost at version" in worker.output


def test_a_frozen_server_is_an_error_at_the_workers(start: Start, port: int) -> None:
    server = start("server", port=port, world_size=2)
    settings = {"port": port, "rank": 1, "rejoin_timeout": 1.0, "exchange_timeout": 1.0}
    worker = start("worker", options={"steps": 100_000}, **settings)
    worker.event("step")
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    assert worker.ends(30) == 1
    assert time.monotonic() - began < 20
    assert "ServerLostError: the server is lost at version" in worker.output


def test_a_server_that_comes_back_is_joined_again(start: Start, port: int) -> None:
    server = start("server", port=port, world_size=2)
    worker = start("worker", port=port, rank=1, rejoin_timeout=20.0, options={"steps": 300, "pause": 0.01})
    worker.event("step")
    server.kill()
    worker.says("the link to the server is lost")
    again = start("server", port=port, world_size=2)
    assert worker.ends() == 0 and again.ends() == 0
    assert again.event("report")["workers"] == [[1, "finished"]]
    assert "another server answers: it is at version 0" in worker.output
