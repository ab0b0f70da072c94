# SPDX-License-Identifier: Apache-2.0
"""The benchmark of what watching costs runs, and verifies what it times; its figures are not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_what_watching_costs_is_measured(repository: Path) -> None:
    command = [sys.executable, str(repository / "benchmarks" / "watching.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[3:]]
    assert [row[0] for row in rows] == ["unwatched", "run_dir", "Prometheus", "both"]
    assert all(float(row[1].replace(",", "")) > 0 for row in rows)
