# SPDX-License-Identifier: Apache-2.0
"""`python -m dgs.launch` as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from family import children
from waiting import until

import dgs
import dgs_ext
from dgs.launch import __main__ as command

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python -m dgs.launch` with its output in the files out and err; it is killed at the end."""
    started: list[subprocess.Popen[str]] = []
    folders = dict.fromkeys(str(Path(m.__file__ or "").parents[1]) for m in (dgs, dgs_ext))

    def launch(*words: object, out: int | None = None, **environ: str) -> subprocess.Popen[str]:
        paths = os.pathsep.join([str(tmp_path), *folders])
        with (tmp_path / "out").open("w") as file, (tmp_path / "err").open("w") as err:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dgs.launch", *map(str, words)],
                    env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environ,
                    stdout=out or file,
                    stderr=err,
                    text=True,
                )
            )
        return started[-1]

    yield launch
    for process in started:
        process.kill()
        process.wait()


def test_nobody_outlives_a_launcher_that_is_killed(
    start: Start, script: Callable[[str], Path], ended: Callable[[Path], None]
) -> None:
    path = script("""
def leave(*_):
    note(f"told {rank}")
    sys.exit()
signal.signal(signal.SIGTERM, leave)
note(f"pid {rank}", os.getpid())
while True:
    time.sleep(1)
""")
    launcher = start("--workers", 2, "-m", path.stem)
    pids = [path.with_name(f"pid {rank}") for rank in range(3)]
    until(lambda: all(pid.exists() for pid in pids), "all have started", 120)
    launcher.kill()
    for pid in pids:
        ended(pid)
    assert all(path.with_name(f"told {rank}").exists() for rank in range(3)), "and each could say goodbye"


def test_a_killed_worker_leaves_the_others_training(start: Start, tmp_path: Path, repository: Path) -> None:
    """Until the launcher is told to end, which ends them in good order."""
    saved = tmp_path / "saved"
    often = {"DGS_CHECKPOINT_DIR": str(saved), "DGS_CHECKPOINT_EVERY": "0.1"}
    example = repository / "example" / "own_loop.py"
    launcher = start("--workers", 2, example, "--max-version", 10_000_000, **often)
    until(lambda: _version(saved) > 0, "they train", 120)
    (worker,) = (pid for pid, environ in children(launcher.pid) if environ.get("RANK") == "1")
    os.kill(worker, signal.SIGKILL)
    err = tmp_path / "err"
    until(
        lambda: (
            "[launch]   worker 1 ended with exit code 137 (SIGKILL); the others go on\n" in err.read_text()
        )
    )
    before = _version(saved)
    until(lambda: _version(saved) > before + 100, "the other goes on", 120)
    launcher.terminate()
    assert launcher.wait(120) == 128 + signal.SIGKILL, "the first exit code that is not 0"
    said = err.read_text()
    assert said.count("[launch]   SIGTERM: passed on to all") == 1
    assert "[launch]   worker 2 ended with exit code 143 (SIGTERM)\n" in said
    assert "[launch]   server ended with exit code 143 (SIGTERM)\n" in said
    assert _version(saved) == int((saved / "latest").resolve().name.rpartition("-")[2])


def _version(folder: Path) -> int:
    """That of the newest checkpoint, 0 before the first."""
    return max((int(path.name.rpartition("-")[2]) for path in folder.glob("0*-version-*")), default=0)


def test_when_nobody_reads_on_it_ends_quietly(
    start: Start, script: Callable[[str], Path], ended: Callable[[Path], None], tmp_path: Path
) -> None:
    """As before `| head -1`."""
    path = script("""
note(f"pid {rank}", os.getpid())
wait("pid 0", "pid 1")
while True:
    print(sys.argv[1:])
    time.sleep(0.1)
""")
    launcher = start("--workers", 1, path, "--one", "2", out=subprocess.PIPE)
    assert launcher.stdout is not None
    assert launcher.stdout.readline().endswith(" ['--one', '2']\n")
    launcher.stdout.close()
    assert launcher.wait(60) == 128 + signal.SIGPIPE
    for rank in range(2):
        ended(tmp_path / f"pid {rank}")
    assert "Traceback" not in (tmp_path / "err").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "2", "nowhere.py"], "there is no script nowhere.py"),
        (["nowhere.py"], "the following arguments are required: --workers"),
        (["--workers", "2"], "the following arguments are required: script\n"),
    ],
)
def test_what_cannot_be_started_is_said(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["launch", *words])
    with pytest.raises(SystemExit) as raised:
        command.main()
    assert raised.value.code == 2 and message in capsys.readouterr().err
