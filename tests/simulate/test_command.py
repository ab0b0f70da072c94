# SPDX-License-Identifier: Apache-2.0
"""python -m dgs.simulate, in a process of its own."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from dgs.simulate import WITHOUT_EFFECT
from dgs.simulate.__main__ import options


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dgs.simulate", *arguments], capture_output=True, text=True, timeout=240
    )


def test_it_writes_a_table_for_each_mode_and_a_picture(tmp_path: Path) -> None:
    done = command("--mode", "dgs", "sgd", "--workers", "2", "--steps", "48", "--density-down", "0.5",
                   "--straggler", "2", "--out", str(tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "dgs   accuracy" in done.stdout
    for mode in ("dgs", "sgd"):
        with (tmp_path / f"{mode}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["version"]) for row in rows] == list(range(2, 49, 2))
        assert list(rows[0]) == [
            "seconds",
            "version",
            "bytes_up",
            "bytes_down",
            "training_loss",
            "loss",
            "accuracy",
        ]
    picture = tmp_path / "runs.png"
    assert picture.exists() != ("no picture" in done.stderr)


def test_what_has_no_effect_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    for name in sorted(WITHOUT_EFFECT):
        option = f"--{name.replace('_', '-')}"
        with pytest.raises(SystemExit):
            options().parse_args([f"{option}=1"])
        assert f"unrecognized arguments: {option}" in capsys.readouterr().err
    assert options().parse_args(["--density-down=0.1", "--nesterov"]).nesterov


def test_what_is_wrong_is_said_in_one_line() -> None:
    done = command("--bandwidth", "fast")
    assert done.returncode == 1
    assert (
        done.stderr
        == "python -m dgs.simulate: a rate must be like 1gbit, 100mbit or bits per second, got 'fast'\n"
    )
