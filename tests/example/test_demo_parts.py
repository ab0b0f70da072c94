# SPDX-License-Identifier: Apache-2.0
"""The demo's parts: processes, progress lines, and the numbers of its table."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from demo import CODECS, commands, options
from demo_board import Board
from demo_processes import ChildError, Event, run
from demo_report import Run, table

from dgs import config

HELLO = "import json; print(json.dumps({'kind': 'x', 'number': %d}), flush=True)"


def test_every_codec_can_be_chosen_and_dense_pushes_take_one_that_they_may() -> None:
    assert set(CODECS) == set(config.CODECS)
    for codec in CODECS:
        args = options().parse_args([f"--codec={codec}"])
        for mode in ("dgs", "asgd", "sgd"):
            (given,) = (a for a in next(iter(commands(mode, args).values())) if a.startswith("--codec="))
            config.resolve(None, {}, mode=mode, codec=given.partition("=")[2])
            assert given == f"--codec={codec}" or mode == "asgd"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_events_come_from_every_child(tmp_path: Path) -> None:
    seen: list[tuple[str, Event]] = []
    commands = {"a": python(HELLO % 1), "b": python(HELLO % 2)}
    told = run(commands, tmp_path, lambda name, event: seen.append((name, event)))
    assert told == {"a": [{"kind": "x", "number": 1}], "b": [{"kind": "x", "number": 2}]}
    assert sorted(name for name, _ in seen) == ["a", "b"]


def test_the_last_words_of_a_failed_child_are_in_the_error(tmp_path: Path) -> None:
    commands = {
        "sleeper": python("import time; time.sleep(600)"),
        "worker 1": python("raise SystemExit('no luck')"),
    }
    with pytest.raises(ChildError, match=r"(?s)worker 1 failed with exit code 1.*worker-1\.log.*no luck"):
        run(commands, tmp_path, lambda *_: None)


def test_a_child_that_talks_nonsense_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="worker 1 said what is no JSON: 'hello'"):
        run({"worker 1": python("print('hello')")}, tmp_path, lambda *_: None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def train(time: float, steps: int, loss: float | None = 0.5) -> Event:
    return {
        "kind": "train", "time": time, "version": 2 * steps, "steps": steps, "images": 10 * steps, "loss": loss,
        "up": 100 * steps, "down": 50 * steps, "other": 4000, "staleness": 1,
    }  # fmt: skip


def test_a_terminal_is_redrawn_in_place_and_a_file_is_not() -> None:
    screens = {}
    for out in (Terminal(), io.StringIO()):
        board = Board("a title", ["server", "worker 1"], end=10, out=out)
        board.see("worker 1", train(0.0, 0, None))
        board.see("server", {"kind": "test", "time": 0.5, "version": 5, "loss": 0.25, "accuracy": 0.975})
        board.see("worker 1", train(1.0, 4))
        board.close()
        screens[type(out)] = out.getvalue()
    assert "\x1b[2A" in screens[Terminal] and "\x1b" not in screens[io.StringIO]
    server, worker = screens[io.StringIO].splitlines()[-2:]
    assert "5/10" in server and "loss 0.2500" in server and "97.5%" in server
    assert "40 images/s" in worker and "0.1 up 0.1 down" in worker and "staleness 1" in worker


@pytest.fixture
def two_workers() -> Run:
    test = {"kind": "test", "time": 102.0, "version": 20, "loss": 0.1, "accuracy": 0.99}
    return Run(
        "dgs",
        {
            "server": [{"kind": "model", "parameters": 1000}, test],
            "worker 1": [train(100.0, 0, None), train(104.0, 40)],
            "worker 2": [train(102.0, 0, None), train(106.0, 20)],
        },
    )


def test_rates_and_bytes_are_those_of_all_workers(two_workers: Run) -> None:
    assert two_workers.seconds == 6.0
    assert two_workers.rate == 600 / 6.0
    assert (two_workers.per_step("up"), two_workers.per_step("down")) == (100.0, 50.0)
    sent = two_workers.sent(np.array([0.0, 102.0, 106.0]))
    assert sent.tolist() == [8000.0, 8000.0 + 3000.0, 8000.0 + 6000.0 + 3000.0]
    row = [cell.strip() for cell in table([two_workers]).splitlines()[-1].split("|")[1:-1]]
    assert row == ["dgs, 2 workers", "99.0%", "100", "100 / 50", "40.0× / 80.0×"]


def test_a_training_loss_weighs_as_much_as_its_steps(two_workers: Run) -> None:
    times, losses = two_workers.training_curve()
    assert times.tolist() == [104.0, 106.0]
    assert losses.tolist() == [0.5, 0.5]
    told = {"worker 1": [train(0.0, 0, None), train(1.0, 40, 1.0), train(2.0, 41, 31.0)]}
    assert Run("sgd", told).training_curve()[1] == pytest.approx([1.0, 2.0])  # a thirtieth of the way to 31
