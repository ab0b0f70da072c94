# SPDX-License-Identifier: Apache-2.0
"""Starts nodes as processes, watches what they say, and leaves none behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dgs
import dgs_ext

NODE = Path(__file__).with_name("node.py")
QUICK: dict[str, Any] = {
    "heartbeat": 0.2,
    "heartbeat_timeout": 10.0,
    "grace": 30.0,
    "join_timeout": 30.0,
    "connect_timeout": 30.0,
    "rejoin_timeout": 5.0,
    "exchange_timeout": 20.0,
    "density": 0.05,
    "threads": 1,
}


def environment() -> dict[str, str]:
    """This process's, in which a child finds the same packages whatever its folder."""
    folders = dict.fromkeys(str(Path(m.__file__ or "").parents[1]) for m in (dgs, dgs_ext))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DGS_", "MASTER_", "TORCHELASTIC_"))}
    return kept | {"PYTHONPATH": os.pathsep.join(folders), "TORCH_CPP_LOG_LEVEL": "ERROR"}


class Nursery:
    """The process that has imported torch, and forks nodes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(NODE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def ask(self, **command: Any) -> tuple[int, dict[str, int]]:
        """The pid of a node started, and the exit codes by pid of those that have ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        pid, ended = json.loads(self._process.stdout.readline())
        return pid, ended

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Node:
    """A running server or worker. Its output, events and log, is a file."""

    def __init__(self, nursery: Nursery, out: Path, options: dict[str, Any]) -> None:
        self._nursery, self._out = nursery, out
        out.touch()
        self.pid, _ = nursery.ask(options=options, out=str(out))

    @property
    def output(self) -> str:
        return self._out.read_text(errors="replace")

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = self.output.splitlines()
        found = [json.loads(line) for line in lines if line.startswith('{"event"') and line.endswith("}")]
        return [event for event in found if event["event"] == kind]

    def code(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        return self._nursery.ask()[1].get(str(self.pid))

    def says(self, text: str, seconds: float = 120.0) -> str:
        """Waits for a text in the output."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < deadline, f"{text!r} is not in:\n{self.output}"
            assert self.code() is None or text in self.output, f"{text!r} is not in:\n{self.output}"
            time.sleep(0.05)
        return self.output

    def event(self, kind: str, seconds: float = 120.0) -> dict[str, Any]:
        """Waits for an event of a kind; returns the last one."""
        self.says(f'{{"event": "{kind}"', seconds)
        return self.events(kind)[-1]

    def ends(self, seconds: float = 120.0) -> int:
        """Waits for the end; returns the exit code."""
        deadline = time.monotonic() + seconds
        while (code := self.code()) is None:
            assert time.monotonic() < deadline, f"it runs on:\n{self.output}"
            time.sleep(0.05)
        return code

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.code() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.ends()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def start(nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Starts nodes: start("server" or "worker", rank=…, settings…, options={…}). They are killed at the end."""
    nodes: list[Node] = []

    def launch(role: str, *, options: dict[str, Any] | None = None, **settings: Any) -> Node:
        out = tmp_path / f"{role}{len(nodes)}.txt"
        node = Node(nursery, out, {"role": role, "settings": QUICK | settings} | (options or {}))
        nodes.append(node)
        return node

    yield launch
    for node in nodes:
        node.kill()


@pytest.fixture
def command() -> Callable[..., list[str]]:
    """The command line of a node: command("server" or …, options…, settings={…})."""

    def make(role: str, settings: dict[str, Any] | None = None, **options: Any) -> list[str]:
        return [str(NODE), json.dumps({"role": role, "settings": QUICK | (settings or {})} | options)]

    return make


@pytest.fixture
def environ() -> dict[str, str]:
    return environment()


@pytest.fixture
def listens(port: int) -> Callable[[], bool]:
    """Says whether something listens at the port."""

    def ask() -> bool:
        lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return any(f[3] == "0A" and f[1].endswith(f":{port:04X}") for f in lines)

    return ask
