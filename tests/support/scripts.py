# SPDX-License-Identifier: Apache-2.0
"""The examples as a user starts them: one process each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

Script = subprocess.Popen[str]


def start(example: Path, *options: object, **environment: str) -> Script:
    """Start a script with one thread, else plain SGD takes all the cores, which tests share."""
    return subprocess.Popen(
        [sys.executable, str(example), *map(str, options)],
        cwd=example.parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(*scripts: Script, seconds: float = 240) -> list[tuple[str, str]]:
    """Wait for all; return what each wrote to stdout and stderr. Fail if one fails; none outlives this."""
    try:
        said = [script.communicate(timeout=seconds) for script in scripts]
    finally:
        kill(*scripts)
    assert [script.returncode for script in scripts] == [0] * len(scripts), said
    return said


def kill(*scripts: Script) -> None:
    """Kill those that still run, as kill -9 does."""
    for script in scripts:
        script.kill()
    for script in scripts:
        script.communicate()
