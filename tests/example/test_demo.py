# SPDX-License-Identifier: Apache-2.0
"""The demo's one command, as a user meets it: what it leaves behind when it succeeds, fails, or is stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import demo
import pytest


def command(repository: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, str(repository / "example" / "demo.py"), f"--out={out}", *options]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(what: str, condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"after {seconds:g} s: not {what}"
        time.sleep(0.05)


@contextmanager
def running(repository: Path, out: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A demo that would take minutes, and the process ids of its server and two workers."""
    demo = subprocess.Popen(
        command(repository, out, "--epochs=1000"),
        cwd=repository,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        listed = Path(f"/proc/{demo.pid}/task/{demo.pid}/children")
        until("three children", lambda: len(listed.read_text().split()) == 3)
        yield demo, [int(pid) for pid in listed.read_text().split()]
    finally:
        demo.kill()
        demo.wait()


def test_the_demo_compares_three_modes(repository: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(repository, tmp_path, "--epochs=0.8", "--codec=bfloat16"),
        cwd=repository,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert all(line in done.stdout for line in lines)
    head, _, *rows = ([c.strip() for c in line.split("|")[1:-1]] for line in lines[:5])
    runs = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(runs) == ["dgs, 2 workers", "asgd, 2 workers", "sgd, one process"]
    for run in runs.values():
        assert float(run["test accuracy"].rstrip("%")) <= 100 and int(run["samples/s"].replace(",", "")) > 0
    ratios = {name: run["compression up / down"] for name, run in runs.items()}
    up, down = (float(cell.rstrip("×")) for cell in ratios["dgs, 2 workers"].split(" / "))
    assert 115 < up < 132 and 115 < down < 140  # 132: 16 bits and 8.1 of index for every hundredth value
    assert ratios["asgd, 2 workers"] == "2.0× / 1.0×"  # the model comes back in float32
    assert ratios["sgd, one process"] == "-"
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in runs)
    ends = re.findall(r"^(\w+) 36/36  in \d+:\d\d", done.stderr, re.MULTILINE)
    assert ends == ["dgs", "asgd", "sgd"], "each run ends with a line of its own"


def test_a_demo_takes_the_place_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(demo, "run", lambda commands, logs: started.append(list(commands)))
    args = demo.options().parse_args([f"--out={tmp_path}"])
    folder = demo.run_dir("dgs", args)
    folder.mkdir(parents=True)
    (folder / "run.json").touch()
    assert demo.train("dgs", args) == folder
    assert started == [["server", "worker 1", "worker 2"]] and not folder.exists()


def test_what_a_process_says_when_it_fails_is_shown(repository: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(repository, tmp_path, "--density=2"), cwd=repository, text=True, capture_output=True
    )
    assert done.returncode == 1
    assert "failed with exit code 2" in done.stderr  # the settings are wrong
    assert "density must be in (0, 1], got 2.0" in done.stderr
    assert not (tmp_path / "table.md").exists()


def test_a_killed_worker_fails_the_demo_and_leaves_no_process(repository: Path, tmp_path: Path) -> None:
    with running(repository, tmp_path) as (demo, children):
        os.kill(children[-1], signal.SIGKILL)
        _, errors = demo.communicate(timeout=60)
        assert demo.returncode == 1
        assert "worker 2 was ended by signal 9" in errors
        assert not any(map(alive, children))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_demo_leaves_no_process(
    repository: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with running(repository, tmp_path) as (demo, children):
        demo.send_signal(number)
        demo.communicate(timeout=60)
        assert demo.returncode == code
        assert not any(map(alive, children))
