# SPDX-License-Identifier: Apache-2.0
"""docs/simulation.md: its example runs, and its list of names is the module's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch.nn.functional import cross_entropy

import dgs.simulate
from dgs.simulate.problem import Patterns


def test_the_example_runs(repository: Path) -> None:
    page = (repository / "docs" / "simulation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code, found = re.subn(r"max_version=5000", "max_version=40", code.replace("every=500", "every=10"))
    assert found == 1
    patterns = Patterns(0, 16, 8)
    names: dict[str, Any] = {
        "make_net": patterns.model,
        "cross_entropy": cross_entropy,
        "loaders": {index: list(patterns.batches(index)) for index in range(8)},
        "accuracy": patterns.evaluate,
    }
    exec(code, names)
    result = names["result"]
    assert [point.version for point in result.points] == [10, 20, 30, 40]
    assert set(result.points[-1].measured) == {"loss", "accuracy"}
    assert sum(result.staleness.values()) == 40
    slow, *others = (use.steps for use in result.workers)
    assert slow < min(others)
    assert 0 < result.server_in < result.server_out < 1


def test_what_the_page_names_is_there(repository: Path) -> None:
    page = (repository / "docs" / "simulation.md").read_text(encoding="utf-8")
    assert not [name for name in dgs.simulate.__all__ if not hasattr(dgs.simulate, name)]
    for name in (
        "Always",
        "LogNormal",
        "Exponential",
        "Straggler",
        "Network",
        "ServerCost",
        "Presence",
        "simulate",
    ):
        assert name in dgs.simulate.__all__
        assert name in page
