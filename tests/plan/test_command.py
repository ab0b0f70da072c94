# SPDX-License-Identifier: Apache-2.0
"""python -m dgs.plan, in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from dgs.errors import ConfigError
from dgs.plan.__main__ import case, options

FIRST = "--model resnet18 --workers 16 --bandwidth 1gbit --latency 0.5ms --step-time 0.33"
OTHER = """--model 1M --workers 4 --bandwidth 100mbit --server-bandwidth 1gbit --step-time 80ms --jitter 0.2
    --straggler 2 --density 0.02 --codec level4 --density-down 0.05 --codec-down int8 --overlap --server-cores 2
    --measure --threads 1 --json"""


def command(arguments: str) -> subprocess.CompletedProcess[str]:
    own = [sys.executable, "-m", "dgs.plan", *arguments.split()]
    return subprocess.run(own, capture_output=True, text=True, timeout=240)


def test_the_table_and_the_advice() -> None:
    done = command(FIRST + " --batch-size 64")
    assert done.returncode == 0, done.stderr
    assert "11,689,512 parameters, 16 workers" in done.stdout
    for row in ("dense all-reduce, float32", "asgd, float32", "dgs, 1 %, float32", "dgs, 0.1 %, int8"):
        assert row in done.stdout
    assert len(re.findall(r"^\* ", done.stdout, re.MULTILINE)) == 1
    for words in ("Recommended: dgs", "Break-even: above", "A rate is not progress", "docs/convergence.md"):
        assert words in done.stdout


def test_json_and_the_options() -> None:
    done = command(OTHER)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["parameters"] == 1_000_000
    assert told["link"] == {"bandwidth": 9.4e7, "latency": 1e-4, "server": 9.4e8}
    assert told["rows"][-1]["name"] == "dgs, 2 %, level4"
    assert "measured on this machine, 1 threads" in told["costs"]["source"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--step-time is needed"),
        (["--bandwidth", "fast"], "a rate must be like 1gbit"),
        (["--model", "alexnet"], "model must be one of resnet18"),
        (["--server", "here"], "a server must be given as HOST:PORT, got 'here'"),
        (["--server", "127.0.0.1:70000"], "a server must be given as HOST:PORT, got '127.0.0.1:70000'"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--measure", "--device", "abacus"], "--device must be like cpu, cuda or cuda:1, got 'abacus'"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], words: str) -> None:
    time = ["--step-time", "0.1"] if arguments else []
    with pytest.raises(ConfigError, match=words):
        case(options().parse_args([*arguments, *time]))


def test_it_is_said_in_one_line() -> None:
    done = command("--step-time 0.1 --batch-size 0")
    assert done.returncode == 1
    assert done.stderr == "python -m dgs.plan: --batch-size must be at least 1, got 0\n"
