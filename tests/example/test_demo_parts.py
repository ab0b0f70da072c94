# SPDX-License-Identifier: Apache-2.0
"""The demo's parts: the command lines of its processes, and what becomes of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from demo import CODECS, commands, options
from demo_processes import ChildError, run

from dgs import config


def test_every_codec_can_be_chosen_and_dense_pushes_take_one_that_they_may() -> None:
    assert set(CODECS) == set(config.CODECS)
    for codec in CODECS:
        args = options().parse_args([f"--codec={codec}"])
        for mode in ("dgs", "asgd", "sgd"):
            (given,) = (a for a in next(iter(commands(mode, args, 29500).values())) if a.startswith("--codec="))
            config.resolve(None, {}, mode=mode, codec=given.partition("=")[2])
            assert given == f"--codec={codec}" or mode == "asgd"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def says(out: str, err: str) -> list[str]:
    return python(f"import sys; print({out!r}); print({err!r}, file=sys.stderr)")


def test_only_the_first_writes_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run({"server": says("serving", "a bar"), "worker 1": says("training", "a warning")}, tmp_path)
    assert capfd.readouterr() == ("", "a bar\n")
    assert (tmp_path / "server.log").read_text() == "serving\n"
    assert sorted((tmp_path / "worker-1.log").read_text().splitlines()) == ["a warning", "training"]


def test_the_last_words_of_a_failed_child_are_in_the_error(tmp_path: Path) -> None:
    commands = {
        "sleeper": python("import time; time.sleep(600)"),
        "worker 1": python("raise SystemExit('no luck')"),
    }
    with pytest.raises(ChildError, match=r"(?s)worker 1 failed with exit code 1.*worker-1\.log.*no luck"):
        run(commands, tmp_path)
