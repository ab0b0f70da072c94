# SPDX-License-Identifier: Apache-2.0
"""Processes that others start: torchrun, and machines (network namespaces) whose name is loopback to themselves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from family import children
from waiting import until

if TYPE_CHECKING:
    from conftest import Node

Command = Callable[..., list[str]]


def test_torchrun(port: int, command: Command, environ: dict[str, str]) -> None:
    """Rank 0 serves, and all meet in the store of torchrun's agent, which owns the port."""
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "3", "--master-port", str(port), *command("torchrun", steps=20)],
        env=environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = _report(done.stdout)
    assert report["workers"] == [[1, "finished"], [2, "finished"]] and report["version"] == 40


def test_one_torchrun_per_worker_starts_a_killed_one_again(
    start: Callable[..., Node], port: int, command: Command, environ: dict[str, str]
) -> None:
    """Its agent has a meeting point of its own; the worker goes to the server's. The other one notices nothing."""
    server = start("server", port=port, world_size=3, grace=0.5)
    endless = {"steps": 1_000_000, "pause": 0.01, "with": True}
    other = start("worker", port=port, rank=2, options=endless)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "3"]
    settings = {"port": port, "rank": 1, "world_size": 3}
    agent = subprocess.Popen(
        [*torchrun, *command("worker", settings, **endless)],
        env=environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server.says("worker 1 joined", 120)
        (worker,) = (pid for pid, found in children(agent.pid) if "TORCHELASTIC_RUN_ID" in found)
        os.kill(worker, signal.SIGKILL)
        until(lambda: server.output.count("worker 1 joined") == 2, "it was started again", 120)
        before = other.event("step")["step"]
        until(lambda: other.event("step")["step"] > before, "the other goes on")
        agent.terminate()
        agent.wait(120)
        other.signal(signal.SIGTERM)
        assert (other.ends(120), server.ends(120)) == (143, 0)
    finally:
        agent.kill()
        agent.wait()
    assert "lost" not in other.output
    assert server.event("report")["workers"] == [[1, "died"], [1, "left"], [2, "left"]]


def _report(output: str) -> dict[str, Any]:
    found = [json.loads(line) for line in output.splitlines() if line.startswith('{"event": "report"')]
    assert len(found) == 1, output
    return dict(found[0])


class _Machines:
    """Two network namespaces joined by a veth pair; in each, the machine's own name is 127.0.1.1 (as on Debian)."""

    def __init__(self, stack: ExitStack, environ: dict[str, str]) -> None:
        self._environ = environ
        tag = f"dgs{os.getpid() % 100_000}"
        self.names = [f"{tag}a", f"{tag}b"]
        self.addresses = ["10.213.7.1", "10.213.7.2"]
        for name in self.names:
            self._ip("netns", "add", name)
            stack.callback(self._ip, "netns", "delete", name)
            hosts = Path("/etc/netns") / name / "hosts"  # `ip netns exec` shows it as /etc/hosts
            hosts.parent.mkdir(parents=True)
            stack.callback(shutil.rmtree, hosts.parent)
            hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        ends = [f"{name}v" for name in self.names]
        self._ip(
            "link",
            "add",
            ends[0],
            "netns",
            self.names[0],
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            "netns",
            self.names[1],
        )
        for name, end, address in zip(self.names, ends, self.addresses, strict=True):
            self._ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            self._ip("-n", name, "link", "set", end, "up")
            self._ip("-n", name, "link", "set", "lo", "up")

    @staticmethod
    def _ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def start(self, number: int, arguments: list[str]) -> subprocess.Popen[str]:
        name = self.names[number]
        run = f'hostname {name} && exec "$@"'
        return subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                name,
                "unshare",
                "--uts",
                "sh",
                "-c",
                run,
                "sh",
                sys.executable,
                *arguments,
            ],
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def machines(environ: dict[str, str]) -> Iterator[_Machines]:
    for tool in ("ip", "unshare", "hostname"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs the program {tool}")
    with ExitStack() as stack:
        try:
            made = _Machines(stack, environ)
        except OSError as error:
            pytest.skip(f"network namespaces are not allowed here: {error}")
        yield made


def _outputs(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What they say until they end, read side by side."""
    found = [""] * len(processes)

    def read(number: int) -> None:
        found[number] = processes[number].communicate(timeout=120)[0]

    threads = [threading.Thread(target=read, args=(n,)) for n in range(len(processes))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return found


def test_machines_whose_name_is_loopback_train_together(machines: _Machines, command: Command) -> None:
    settings = {"master": machines.addresses[0], "port": 29500}
    processes = [machines.start(0, command("server", settings | {"world_size": 3}))]
    try:
        for rank, machine in ((1, 1), (2, 0)):
            processes.append(machines.start(machine, command("worker", settings | {"rank": rank}, steps=20)))
        outputs = _outputs(processes)
        assert [p.returncode for p in processes] == [0, 0, 0], "\n\n".join(outputs)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    report = _report(outputs[0])
    assert report["workers"] == [[1, "finished"], [2, "finished"]] and report["version"] == 40
    assert report["after"] < report["before"]
