# SPDX-License-Identifier: Apache-2.0
"""Real processes that may not join, or not yet: the message is on both sides, and the run goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Node

Start = Callable[..., "Node"]

MISFITS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "layout": ("tensor 0: 0.weight [64, 20] here, 0.weight [65, 20] there", {}, {"hidden": 65}),
    "method": ("the worker's method asgd is dense, the server's dgs is sparse", {"mode": "asgd"}, {}),
    "codec": ("the server sends bfloat16, the worker reads float32", {}, {"codecs": ["float32"]}),
    "protocol": ("the worker speaks protocol 1, the server 4", {}, {"protocol": 1}),
    "wire": ("the worker writes frames of version 2, the server reads 1", {}, {"wire": 2}),
    "rank": ("rank 1 is taken by a worker that is alive", {"rank": 1}, {}),
}


def test_those_that_do_not_fit_are_refused_and_the_run_goes_on(start: Start, port: int) -> None:
    settings = {"port": port, "world_size": 3, "token": "secret"}
    server = start("server", codec_down="bfloat16", **settings)
    trains = start("worker", rank=1, options={"steps": 100_000, "pause": 0.05}, **settings)
    trains.event("step")
    misfits = {
        code: start("worker", **settings | {"rank": 2} | chosen, options=options)
        for code, (_, chosen, options) in MISFITS.items()
    }
    for code, misfit in misfits.items():
        text = MISFITS[code][0]
        assert misfit.ends() == 1 and "errors.RefusedError: " in misfit.output and text in misfit.output
        server.says(f"WARNING a worker was refused ({code}): ")
        assert text in server.output
    for token in ("wrong", None):
        stranger = start("worker", rank=2, options={"environ": {}}, **settings | {"token": token})
        assert stranger.ends() == 1 and "AuthenticationError" in stranger.output
        assert "DGS_TOKEN" in stranger.output
    server.says("a worker was refused (token)")
    trains.signal(signal.SIGKILL)
    server.says("worker 1 died at version")
    again = [start("worker", rank=rank, options={"steps": 20}, **settings) for rank in (1, 2)]
    assert [n.ends() for n in (*again, server)] == [0, 0, 0], "the rank is free once its worker is dead"
    assert server.event("report")["workers"] == [[1, "died"], [1, "finished"], [2, "finished"]]
    assert "secret" not in server.output + again[0].output


def test_a_worker_waits_for_the_server_and_takes_its_token_from_the_environment(
    start: Start, port: int
) -> None:
    options = {"steps": 5, "environ": {"DGS_TOKEN": "secret", "RANK": "1", "MASTER_PORT": str(port)}}
    worker = start("worker", options=options)
    worker.says(f"waiting for the server at 127.0.0.1:{port}")
    server = start("server", port=port, world_size=2, options={"environ": {"DGS_TOKEN": "secret"}})
    assert worker.ends() == 0 and server.ends() == 0
    assert server.event("report")["workers"] == [[1, "finished"]]


def test_a_token_that_the_server_does_not_have(start: Start, port: int) -> None:
    server = start("server", port=port, world_size=2, join_timeout=4.0)
    worker = start("worker", port=port, rank=1, token="secret")
    assert worker.ends() == 1
    assert "AuthenticationError: this worker has a token (DGS_TOKEN) and the server has none" in worker.output
    server.says("a worker was refused (token)")
    assert server.ends() == 0 and "no worker came within 4 s" in server.output


def test_no_server_and_a_port_in_use(start: Start, port: int, listens: Callable[[], bool]) -> None:
    alone = start("worker", port=port, rank=1, connect_timeout=0.5)
    assert alone.ends() == 1 and f"ServerUnreachableError: no server at 127.0.0.1:{port}" in alone.output
    first = start("server", port=port, world_size=2)
    first.says("INFO serving")
    second = start("server", port=port, world_size=2)
    assert second.ends() == 1 and f"PortInUseError: cannot listen at 127.0.0.1:{port}" in second.output
    assert listens() and first.code() is None


def test_a_local_run_is_reached_through_loopback_alone(start: Start, port: int) -> None:
    server = start("server", port=port, world_size=2)
    worker = start("worker", port=port, rank=1, options={"steps": 100_000})
    worker.event("step")
    for node in (server, worker):
        assert _addresses(node.pid) == {"0100007F"}


def _addresses(pid: int) -> set[str]:
    """The local addresses, as in /proc/net/tcp, at which a process listens."""
    targets = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {target[8:-1] for target in targets if target.startswith("socket:[")}
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {fields[1].split(":")[0] for fields in lines if fields[3] == "0A" and fields[9] in inodes}
