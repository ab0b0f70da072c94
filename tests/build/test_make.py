# SPDX-License-Identifier: Apache-2.0
"""The Makefile: what it says about a Python it cannot use, and what it would run, without running it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without make's own variables, which `make test` hands down.
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "DGS_"))
    }
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, check=False)


def python_of_version(folder: Path, version: str) -> Path:
    """Write an interpreter that takes itself for another version."""
    script = folder / "python"
    code = f"import sys; sys.version_info = ({version}, 0, 'final', 0); exec(sys.argv[1])"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$2"\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(("version", "words"), [("3, 10", "is 3.10"), ("3, 15", "is 3.15")])
def test_a_python_out_of_range_is_refused_by_name(
    repository: Path, tmp_path: Path, version: str, words: str
) -> None:
    python = python_of_version(tmp_path, version)
    run = make(repository, "setup", f"PYTHON={python}", f"VENV={tmp_path / 'env'}")
    assert run.returncode != 0
    assert f"dgs needs Python 3.11 to 3.14, and {python} {words}; name another" in run.stderr
    assert not (tmp_path / "env").exists()


def test_torch_is_installed_before_anything_is_compiled(repository: Path, tmp_path: Path) -> None:
    plan = make(repository, "-n", "test", f"VENV={tmp_path / 'env'}").stdout
    steps = [
        "-m venv",
        "pip install 'torch>=2.10'",
        "pip install --no-build-isolation -e",
        "ctest --test-dir",
        "bin/pytest",
    ]
    places = [plan.index(step) for step in steps]
    assert places == sorted(places)


def test_what_is_there_is_reused(repository: Path, tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.mkdir()
    for stamp in ("python", "cuda-auto", "torch", "installed"):
        (env / f".stamp-{stamp}").touch()
    assert "pip install" not in make(repository, "-n", "demo", f"VENV={env}").stdout
    assert "pip install" not in make(repository, "-n", "setup", f"VENV={env}").stdout


def test_variables_become_options_of_the_demo(repository: Path, tmp_path: Path) -> None:
    plan = make(
        repository, "-n", "demo", "MODE=dgc", "WORKERS=4", "DENSITY_DOWN=0.1", f"VENV={tmp_path / 'env'}"
    )
    (line,) = (line for line in plan.stdout.splitlines() if "example/demo.py" in line)
    assert line.split("example/demo.py")[1].split() == [
        "--mode",
        "dgc",
        "--workers",
        "4",
        "--density-down",
        "0.1",
    ]


def test_every_variable_is_an_option_that_the_demo_has(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text()
    names = next(line for line in makefile.splitlines() if line.startswith("DEMO := ")).split()[2:]
    options = subprocess.run(
        [sys.executable, "example/demo.py", "--help"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert names
    assert [name for name in names if f"--{name.lower().replace('_', '-')}" not in options] == []
