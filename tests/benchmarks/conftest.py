# SPDX-License-Identifier: Apache-2.0
"""The modules of benchmarks/, which is a folder of scripts and no package."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def scripts(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the benchmarks' modules importable by their names."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return repository / "benchmarks"
