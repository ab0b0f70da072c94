# SPDX-License-Identifier: Apache-2.0
"""Tests that need a GPU are marked `cuda`, and fail in place of being skipped where one is promised."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOWHERE = {"CUDA_VISIBLE_DEVICES": ""}  # no GPU for torch, whatever there is


def run(repository: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on the marked tests in a process that sees no GPU."""
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", *arguments]
    variables = {name: value for name, value in os.environ.items() if name != "FAIL_WITHOUT_CUDA"}
    return subprocess.run(
        command,
        cwd=repository,
        env=variables | NOWHERE | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("promise", "outcome"), [("0", "1 skipped"), ("1", "1 error")])
def test_a_promised_gpu_that_is_missing_is_a_failure(repository: Path, promise: str, outcome: str) -> None:
    test = "tests/cuda/test_cuda.py::test_indices_outside_are_dropped"
    done = run(repository, test, FAIL_WITHOUT_CUDA=promise)
    assert outcome in done.stdout, done.stdout + done.stderr
    assert (done.returncode != 0) == (promise == "1")
    assert ("though FAIL_WITHOUT_CUDA promises it" in done.stdout) == (promise == "1")


def test_the_mark_finds_the_tests_that_ask_for_a_gpu(repository: Path) -> None:
    files = ["tests/cuda/test_cuda.py", "tests/ops/test_threads.py", "tests/ops/test_selection.py"]
    listed = run(repository, "--collect-only", "-q", *files).stdout
    assert "test_cuda.py::test_nothing_waits_for_the_device" in listed
    assert "test_selection.py::test_allocate[cuda]" in listed
    assert "test_selection.py::test_to_cpu" in listed
    assert "test_allocate[cpu]" not in listed
    assert "test_threads.py" not in listed
