# SPDX-License-Identifier: Apache-2.0
"""Every benchmark runs and verifies what it times; its figures are not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("kernels", ["--repeats", "1", "--threads", "1"], "step_velocity"),
        ("wire", ["--numel", "200000", "--density", "0.01", "--repeats", "1"], "bfloat16 0.01"),
        ("server", ["--workers", "1", "--steps", "1"], "gloo dgs × 1"),
    ],
)
def test_a_benchmark_runs(repository: Path, name: str, arguments: list[str], expected: str) -> None:
    command = [sys.executable, str(repository / "benchmarks" / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
