# SPDX-License-Identifier: Apache-2.0
"""What every test may ask for, and a closing summary that says what did not run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

# The same examples in every run, and no limit on one's time: the machine may be busy.
hypothesis.settings.register_profile("dgs", deadline=None, max_examples=25, derandomize=True, database=None)
hypothesis.settings.load_profile("dgs")


def promised(variable: str) -> bool:
    """Say whether the environment promises a resource: its absence is then a failure, not a skip."""
    return os.environ.get(variable, "") not in ("", "0")


def _missing(what: str, promise: str) -> None:
    if promised(promise):
        pytest.fail(f"{what}, though {promise} promises it", pytrace=False)
    pytest.skip(f"{what} ({promise} is not set either)")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real data; skip where DGS_TEST_DATA is unset, fail where it names no folder."""
    named = os.environ.get("DGS_TEST_DATA")
    if not named:
        pytest.skip("needs real data: DGS_TEST_DATA names no folder (.ci/run makes one)")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"DGS_TEST_DATA names {folder}, which is no folder", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def cifar10(test_data: Path) -> Path:
    """Return the folder that holds `cifar-10-batches-bin`."""
    if not (test_data / "cifar-10-batches-bin" / "test_batch.bin").exists():
        pytest.fail(f"DGS_TEST_DATA={test_data} holds no cifar-10-batches-bin/test_batch.bin", pytrace=False)
    return test_data


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    """Return the first GPU; skip where there is none, fail where FAIL_WITHOUT_CUDA=1 promises one."""
    if not torch.cuda.is_available():
        _missing("needs a GPU that torch can use", "FAIL_WITHOUT_CUDA")
    return torch.device("cuda", 0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the source tree."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def port() -> Iterator[int]:
    """Return a port of loopback that nothing listens at, kept from all others until the end of the test."""
    from dgs.transport.address import held  # what is not built does not keep other tests from running

    with held() as number:
        yield number


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on a GPU, by what it asks for: `-m cuda` is all of it."""
    for item in items:
        device = item.callspec.params.get("device") if hasattr(item, "callspec") else None
        if device == "cuda" or "cuda" in getattr(item, "fixturenames", ()):
            item.add_marker("cuda")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what did not run and why, one line for each reason: pytest's own list has one for each place."""
    skipped = terminalreporter.stats.get("skipped", [])
    left_out = len(terminalreporter.stats.get("deselected", []))
    if not skipped and not left_out:
        return
    terminalreporter.section("not run")
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5} {reason}")
    if left_out:
        terminalreporter.write_line(f"{left_out:5} left out by marker or name; the slow ones: make test-long")
