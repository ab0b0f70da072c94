# SPDX-License-Identifier: Apache-2.0
"""The emulator's own tests, every CUDA kernel executed in it, and planted bugs that both must report."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"


class Bug(NamedTuple):
    """A bug: what stands in a file, what is put in its place, and the test that must fail."""

    file: str
    old: str
    new: str
    arguments: tuple[str, ...] = ("2", "small", "few")
    program: str = "test_selection"
    mode: str = "plain"
    says: str = ""


SWEEP, ESTIMATE = "cuda/sweep_kernels.cuh", "cuda/estimate_kernels.cuh"
TILE, THRESHOLD, COMPACT = "cuda/tile.cuh", "cuda/threshold_kernels.cuh", "cuda/compact_kernels.cuh"
STEP, APPLY = "cuda/step_kernels.cuh", "cuda/apply_kernels.cuh"
TOTALS = "warp_total[warp] = sum_of_bytes(all);\n  __syncthreads();"
BEGIN = "if (total == 0) return;\n  __syncthreads();"
CLEARED = "b += kThreads) bins[b] = 0;\n  __syncthreads();\n  const TileEntries"
TIE = "(my_equal) < state.ties;"
INSIDE = "if (i < 0 || i >= numel) continue;\n    const float q"
OP = {"program": "test_kernels"}
PLANTED = {
    "no barrier before the totals are read": Bug(SWEEP, TOTALS, TOTALS.replace("__syncthreads();", "")),
    "no guard at the tail of a segment": Bug(
        TILE, "p + e >= tile.begin && p + e < tile.end", "p + e >= tile.begin"
    ),
    "half of the warp in the mask": Bug(
        SWEEP, "(kFullWarp, inclusive, 31)", "(0xffffu, inclusive, 31)", says="take part"
    ),
    "a race": Bug(
        SWEEP, BEGIN, BEGIN.replace("__syncthreads();", ""), ("1", "race"), mode="race", says="data race"
    ),
}
MORE_PLANTED = {
    "aligned wherever it lies": Bug(
        "cuda/vector.cuh", "vector_ && past == shift_", "vector_", says="misaligned", **OP
    ),
    "no barrier after the bins are cleared": Bug(THRESHOLD, CLEARED, CLEARED.replace("__syncthreads();", "")),
    "no barrier after the sample": Bug(
        ESTIMATE, "bins[b] = 0;\n  __syncthreads();", "bins[b] = 0;", ("2", "large")
    ),
    "no barrier between scans": Bug(
        "cuda/device.cuh", "  __syncthreads();\n  return {", "  return {", ("1", "chunks")
    ),
    "no barrier between the warps' counts": Bug(COMPACT, "= value;\n  __syncthreads();", "= value;"),
    "the estimate is trusted": Bug(
        "cuda/candidates.h", "state.candidates >= static_cast<Count>(goal.needed)", "true", ("1", "hard")
    ),
    "the bound is passed": Bug(
        SWEEP, "> static_cast<Count>(goal.bound)) return", "== 0) return", ("1", "hard"), mode="asan"
    ),
    "candidates out of order": Bug(SWEEP, "below += w < warp", "below += w > warp"),
    "one tie too many": Bug(COMPACT, TIE, TIE.replace("<", "<=")),
    "ties highest index first": Bug(COMPACT, TIE, TIE.replace("<", ">=")),
    "velocity not checked": Bug(STEP, "all_finite(next.u) && all_finite(next.r)", "all_finite(next.r)", **OP),
    "indices not checked": Bug(APPLY, INSIDE, INSIDE.replace("i < 0 || i >= numel", "numel < 0"), **OP),
    "whole segments masked": Bug(APPLY, "if (mask && q", "if (q", **OP),
}


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=250)


@pytest.mark.parametrize("mode", ["plain", "asan", "race", "ucontext"])
def test_emulator(made, mode):
    result = run(made("test_emulator", mode))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("program", "mode", "arguments"),
    [
        ("test_kernels", "plain", ("1",)),
        ("test_kernels", "asan", ("1", "few")),
        ("test_selection", "plain", ("2",)),
        ("test_selection", "asan", ("1", "none", "empty", "small", "few", "hard")),
        ("test_kernels", "race", ("1", "few")),
        ("test_selection", "race", ("1", "none", "empty", "small", "few", "hard", "race")),
        pytest.param("test_kernels", "race", ("2",), marks=pytest.mark.slow),
        pytest.param("test_selection", "race", ("4",), marks=pytest.mark.slow),
        pytest.param("test_kernels", "plain", ("12",), marks=pytest.mark.slow),
        pytest.param("test_selection", "plain", ("40",), marks=pytest.mark.slow),
        pytest.param("test_selection", "asan", ("6",), marks=pytest.mark.slow),
    ],
)
def test_kernels(made, program, mode, arguments):
    result = run(made(program, mode), *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def report_of(made, tmp_path: Path, bug: Bug) -> str:
    """Run the test over a copy of the headers with the bug; return what it says, "" if it passes."""
    headers = tmp_path / "csrc"
    for folder in ("common", "cuda"):
        shutil.copytree(CSRC / folder, headers / folder)
    source = (headers / bug.file).read_text()
    assert source.count(bug.old) == 1, f"{bug.file} has changed: plant the bug anew"
    (headers / bug.file).write_text(source.replace(bug.old, bug.new))
    program = made(bug.program, bug.mode, BUILD=str(tmp_path), CUDA_HEADERS=str(headers))
    result = run(program, *bug.arguments)
    return (
        "" if result.returncode == 0 else result.stdout + result.stderr + f"exit status {result.returncode}"
    )


@pytest.fixture(scope="session")
def reports(
    made: Callable[..., Path], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Bug, Future[str]]]:
    """Run the tests against all planted bugs of this session, on all cores; return what each will say."""
    planted = (item.callspec.params.get("bug") for item in request.session.items if hasattr(item, "callspec"))
    bugs = [bug for bug in planted if isinstance(bug, Bug)]
    pool = ThreadPoolExecutor(os.cpu_count())
    folders = [tmp_path_factory.mktemp("planted") for _ in bugs]
    yield {bug: pool.submit(report_of, made, path, bug) for bug, path in zip(bugs, folders, strict=True)}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("bug", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_bug_is_found(reports, bug):
    report = reports[bug].result()
    assert report
    assert bug.says in report


@pytest.mark.slow
@pytest.mark.parametrize("bug", MORE_PLANTED.values(), ids=MORE_PLANTED.keys())
def test_more_planted_bugs_are_found(reports, bug):
    report = reports[bug].result()
    assert report
    assert bug.says in report


def test_races_are_found(made):
    result = run(made("test_races", "race"))
    assert result.returncode == 0, result.stdout + result.stderr
