# SPDX-License-Identifier: Apache-2.0
"""The emulator's own tests, every CUDA kernel executed in it, and planted bugs that both must report."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"

# Bugs by what they do: the file, what stands there, and what to put in its place.
THRESHOLD, COMPACT = "cuda/threshold_kernels.cuh", "cuda/compact_kernels.cuh"
STEP, APPLY = "cuda/step_kernels.cuh", "cuda/apply_kernels.cuh"
CLEARED = "b += kThreads) bins[b] = 0;\n  __syncthreads();\n  const Operand"
TIE = "(my_equal) < cut.ties;"
PLANTED = {
    "no barrier after the bins are cleared": (THRESHOLD, CLEARED, CLEARED.replace("__syncthreads();", "")),
    "no guard at the tail of a tile": (COMPACT, "inside = first + 32 * j < chunk.end;", "inside = true;"),
}
MORE_PLANTED = {
    "no barrier at the end of a tile": (COMPACT, "  __syncthreads();\n  return count;", "  return count;"),
    "no barrier between scans": ("cuda/device.cuh", "  __syncthreads();\n  return {", "  return {"),
    "one tie too many": (COMPACT, TIE, TIE.replace("<", "<=")),
    "ties highest index first": (COMPACT, TIE, TIE.replace("<", ">=")),
    "velocity not checked": (STEP, "bad |= !finite(u);", "(void)bad;"),
    "indices not checked": (APPLY, "if (i < 0 || i >= numel) continue;", "if (numel < 0) continue;"),
    "whole segments masked": (APPLY, "if (mask && q", "if (q"),
}


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=250
    )


@pytest.mark.parametrize("mode", ["plain", "asan", pytest.param("tsan", marks=pytest.mark.slow), "ucontext"])
def test_emulator(made, mode):
    result = run(made("test_emulator", mode))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        ("plain", ("1",)),
        ("asan", ("1", "none", "empty", "small", "few")),
        pytest.param("tsan", ("1", "none", "empty", "few"), marks=pytest.mark.slow),
    ],
    ids=["plain", "asan", "tsan"],
)
def test_kernels(made, mode, arguments):
    result = run(made("test_kernels", mode), *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def report_of(made, tmp_path: Path, file: str, old: str, new: str) -> str:
    """Test the kernels over a copy of the headers in which `old` is `new`; return what it says, "" if it passes."""
    headers = tmp_path / "csrc"
    for folder in ("common", "cuda"):
        shutil.copytree(CSRC / folder, headers / folder)
    source = (headers / file).read_text()
    assert source.count(old) == 1, f"{file} has changed: plant the bug anew"
    (headers / file).write_text(source.replace(old, new))
    result = run(
        made("test_kernels", BUILD=str(tmp_path), CUDA_HEADERS=str(headers)), "2", "small", "few", "chunks"
    )
    return "" if result.returncode == 0 else result.stdout + result.stderr + "failed"


@pytest.mark.parametrize("bug", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_bug_is_found(made, tmp_path, bug):
    assert report_of(made, tmp_path, *bug)


@pytest.mark.slow
@pytest.mark.parametrize("bug", MORE_PLANTED.values(), ids=MORE_PLANTED.keys())
def test_more_planted_bugs_are_found(made, tmp_path, bug):
    assert report_of(made, tmp_path, *bug)


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["no_fence", "no_syncwarp"])
def test_races_are_found_by_tsan(made, bug):
    result = run(made("test_emulator", "tsan"), bug)
    assert "data race" in result.stderr
