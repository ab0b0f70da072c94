# SPDX-License-Identifier: Apache-2.0
"""Real processes over gloo: SIGTERM as an orderly end, and exchanges beside the computation."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Node

Start = Callable[..., "Node"]


@pytest.mark.parametrize("when", ["between steps", "while a step computes"])
@pytest.mark.parametrize("overlap", [False, True])
def test_sigterm_is_an_orderly_end(start: Start, port: int, when: str, overlap: bool) -> None:
    server = start("server", port=port, world_size=2, grace=0.5)
    busy = {"busy_at": 20, "busy": 600.0} if when == "while a step computes" else {}
    worker = start(
        "worker",
        port=port,
        rank=1,
        flush=True,
        overlap=overlap,
        options={"steps": 100_000, "pause": 0.01, "with": True, "close": False} | busy,
    )
    worker.event("busy" if busy else "step")
    version = worker.events("step")[-1]["version"]
    worker.signal(signal.SIGTERM)
    assert worker.ends(60) == 143, "long before the step has been computed"
    assert server.ends() == 0
    report = server.event("report")
    assert (report["workers"], report["reasons"]) == ([[1, "left"]], ["SIGTERM"])
    assert report["version"] > version
    if busy:
        assert report["version"] == 20 + 1, "twenty steps and the flush"


def test_without_a_block_sigterm_kills_and_the_server_goes_on(start: Start, port: int) -> None:
    server = start("server", port=port, world_size=2, grace=0.5)
    worker = start("worker", port=port, rank=1, options={"steps": 100_000, "pause": 0.01})
    worker.event("step")
    worker.signal(signal.SIGTERM)
    assert worker.ends() == -signal.SIGTERM and server.ends() == 0
    assert server.event("report")["workers"] == [[1, "died"]]


def test_processes_train_with_exchanges_beside_the_computation(start: Start, port: int) -> None:
    """One closes, one ends without close(), and one is killed with an exchange under way."""
    server = start("server", port=port, world_size=4, grace=1.0, buffers_every=5)
    settings = {"port": port, "overlap": True, "codec": "bfloat16"}
    closed, unclosed, killed = (
        start("worker", rank=rank, options=options, **settings)
        for rank, options in (
            (1, {"steps": 150}),
            (2, {"steps": 100, "close": False}),
            (3, {"steps": 100_000}),
        )
    )
    killed.event("step")
    killed.signal(signal.SIGKILL)
    assert [n.ends() for n in (closed, unclosed, killed, server)] == [0, 0, -signal.SIGKILL, 0]
    report = server.event("report")
    assert report["workers"] == [[1, "finished"], [2, "finished"], [3, "died"]]
    assert report["version"] >= 250, "the last exchange of each counts"
    assert report["after"] < report["before"] / 2
