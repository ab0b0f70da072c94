# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md, followed word by word in an empty folder: its files, its commands, each terminal a process."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from blocks import Block, blocks, commands
from shell import ROOT

import dgs
import dgs_ext

PAGE = [block for block in blocks(ROOT) if block.page == "docs/tutorial.md"]
CODE = [block.text for block in PAGE if block.language == "python"]
SHELL = [block for block in PAGE if block.language == "sh"]
STEPS = 150

pytest.importorskip("sklearn", reason="the tutorial's digits are scikit-learn's")


def terminals(*found: Block) -> list[list[str]]:
    """The commands of the blocks, each for a terminal of its own; another machine is this one."""
    lines = [line for block in found for line in commands(block.text) if line.startswith("python ")]
    return [shlex.split(line.replace("192.168.1.10", "127.0.0.1"))[1:] for line in lines]


def run(folder: Path, terminals: list[list[str]], port: int) -> list[str]:
    """What each command prints, all of them run at once."""
    installed = {str(Path(str(module.__file__)).parents[1]) for module in (dgs, dgs_ext)}
    environment = os.environ | {
        "DGS_TOKEN": "of-this-test",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(installed),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *words, "--max-version", str(STEPS)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in terminals
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, words, text in zip(processes, terminals, said, strict=True):
        assert process.returncode == 0, f"python {shlex.join(words)}:\n{text}"
    return said


def test_the_plain_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert terminals(SHELL[1]) == [["plain.py"]]
    (tmp_path / "plain.py").write_text(CODE[0], encoding="utf-8")
    runpy.run_path(str(tmp_path / "plain.py"))
    assert float(re.findall(r"accuracy ([\d.]+)%", capsys.readouterr().out)[0]) > 85


def test_a_server_and_two_workers(tmp_path: Path, port: int) -> None:
    (tmp_path / "train.py").write_text(CODE[1], encoding="utf-8")
    (said,) = run(tmp_path, terminals(SHELL[2]), port)
    assert f"[server]   version {STEPS}: accuracy" in said
    steps = re.findall(r"\[worker ([12])\] worker \1: (\d+) steps", said)
    assert len(steps) == 2 and sum(int(count) for _, count in steps) >= STEPS


def test_the_second_version_on_two_machines_and_its_model(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both functions of step 3 put in place of the first ones; the commands of step 4; the model of step 5."""
    program, look, train, load = CODE[1], *CODE[2:]
    program = re.sub(r"def serve\(.*?(?=\n\n\n)", lambda _: look.strip(), program, count=1, flags=re.DOTALL)
    program = re.sub(r"def train\(.*?(?=\n\n\n)", lambda _: train.strip(), program, count=1, flags=re.DOTALL)
    (tmp_path / "train.py").write_text(program.replace("every=200", "every=50"), encoding="utf-8")
    server, *_ = run(tmp_path, terminals(*SHELL[3:]), port)
    assert re.search(rf"version {STEPS}: accuracy", server)
    monkeypatch.chdir(tmp_path)
    exec(load, {"torch": torch, "nn": torch.nn})
