# SPDX-License-Identifier: Apache-2.0
"""Small scripts for the launcher, which need no torch, and what it says about them."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import until

from dgs.launch import launch
from dgs.launch.output import Screen

# What a script of these tests finds: its rank, and a folder in which all of them leave notes.
_BEGIN = """
import os, pathlib, signal, socket, subprocess, sys, time
rank, parent, port = int(os.environ["RANK"]), os.getppid(), int(os.environ["MASTER_PORT"])
notes = pathlib.Path(__file__).parent
def note(name, text=""):
    part = notes / f".{name}.{rank}"
    part.write_text(str(text))
    part.rename(notes / name)
def wait(*names):
    while not all((notes / name).exists() for name in names):
        time.sleep(0.02)
def wait_for_the_end_of(pid):
    while pathlib.Path(f"/proc/{pid}").exists():
        time.sleep(0.02)
"""


@dataclass
class Launched:
    """What a run of the launcher was: its exit code, and its lines."""

    code: int
    out: list[str]
    err: list[str]
    notes: Path = field(repr=False)

    def said(self, name: str) -> list[str]:
        """The lines of one process on stdout, without its name."""
        return [line[len(f"[{name}]") :].strip() for line in self.out if line.startswith(f"[{name}]")]


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """As in a terminal: where tests run in the background, some signals may be ignored, which children inherit."""
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def ended() -> Callable[[Path], None]:
    """Waits until the process is gone whose pid is in a file."""
    return lambda file: until(lambda: gone(int(file.read_text())), f"the process of {file.name} ended")


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a script of that code."""

    def write(code: str) -> Path:
        path = tmp_path / "script.py"
        path.write_text(_BEGIN + code)
        return path

    return write


@pytest.fixture
def run(script: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Launched]:
    """Runs the launcher in this process: run("code of the script", "an argument", workers=2)."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def start(code: str, *arguments: str, workers: int = 2, port: int = 0) -> Launched:
        path, out, err = script(code), io.BytesIO(), io.BytesIO()
        status = launch([str(path), *arguments], workers, port=port, screen=Screen(out, err, workers))
        return Launched(status, *(s.getvalue().decode().splitlines() for s in (out, err)), path.parent)

    return start
