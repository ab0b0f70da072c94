# SPDX-License-Identifier: Apache-2.0
"""docs/deployment.md: its server and worker run, and its units and manifests start what is there."""

from __future__ import annotations

import argparse
import configparser
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from blocks import Block, blocks, commands
from shell import ROOT, check, known_variable

import dgs
import dgs_ext

PAGE = [block for block in blocks(ROOT) if block.page == "docs/deployment.md"]
CODE = [block.text for block in PAGE if block.language == "python"]
UNITS = [block for block in PAGE if block.language == "ini"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the page has its reader write."""
    for code in CODE[1:]:
        (tmp_path / code.partition("\n")[0].removeprefix("# ")).write_text(code, encoding="utf-8")
    return tmp_path


def test_a_script_asks_for_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, rank in ((None, 3), (1, 1)):
        names: dict[str, Any] = {"args": argparse.Namespace(rank=given)}
        monkeypatch.setenv("RANK", "3")
        exec(CODE[0], names)
        assert names["rank"] == rank


def test_a_server_by_itself_and_its_worker(folder: Path, port: int) -> None:
    """The two commands as they stand, but for the address and a shorter run."""
    block = next(block for block in PAGE if block.first.startswith("dgs-server mymodels:"))
    server, worker = (shlex.split(line.replace("192.168.1.10", "127.0.0.1")) for line in commands(block.text))
    server[server.index("--max-version") + 1] = "60"
    installed = {str(Path(str(module.__file__)).parents[1]) for module in (dgs, dgs_ext)}
    environment = os.environ | {
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(installed),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in (["-m", "dgs.serve", *server[1:]], worker[1:])
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], said
    assert "version 60: checkpoints/latest/model.safetensors" in said[0]
    assert (folder / "checkpoints" / "latest" / "model.safetensors").is_file()


@pytest.mark.parametrize("block", UNITS, ids=str)
def test_a_unit_starts_what_is_there(block: Block, folder: Path) -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block.text)
    assert set(unit) == {"DEFAULT", "Unit", "Service", "Install"}
    path, _, arguments = unit["Service"]["ExecStart"].partition(" ")
    assert path.startswith(unit["Service"]["WorkingDirectory"])
    check(f"{Path(path).name} {arguments}", [folder])


def test_the_pods_find_each_other() -> None:
    (block,) = (block for block in PAGE if block.language == "yaml")
    service, job = yaml.safe_load_all(block.text)
    name, pods = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {"job-name": name}
    assert pods["subdomain"] == service["metadata"]["name"]
    (container,) = pods["containers"]
    check(shlex.join(container["command"]), [ROOT])
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    for variable in variables:
        known_variable(variable)
    assert variables["MASTER_ADDR"] == f"{name}-0.{pods['subdomain']}"
    assert int(variables["WORLD_SIZE"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    found = dgs.config.resolve(None, {n: v or "0" for n, v in variables.items()})
    assert found.rank == 0 and found.checkpoint_resume and found.rejoin_timeout == 600
    (mount,), (volume,) = container["volumeMounts"], pods["volumes"]
    assert mount["name"] == volume["name"] and str(found.checkpoint_dir).startswith(mount["mountPath"])
