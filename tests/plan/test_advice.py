# SPDX-License-Identifier: Apache-2.0
"""What a plan recommends is the best of its table, and it says when the library is not worth it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from dgs.errors import ConfigError
from dgs.plan import Case, Link, layout_of, plan, record, text
from dgs.plan.advice import rates_at

RESNET = layout_of("resnet18")


def case(bandwidth: float, workers: int = 8, **others: object) -> Case:
    known = {"layout": RESNET, "step_time": 0.3} | others
    return Case(workers=workers, link=Link(bandwidth, 1e-4), **known)  # type: ignore[arg-type]


@pytest.mark.parametrize("bandwidth", [1e7, 1e8, 1e9])
@pytest.mark.parametrize("workers", [2, 16])
def test_the_recommendation_is_the_best_of_the_table(bandwidth: float, workers: int) -> None:
    found = plan(case(bandwidth, workers))
    assert found.recommended in found.rows
    fastest = max(row.rate for row in found.rows)
    assert found.recommended.rate >= 0.9 * fastest
    denser = [r for r in found.rows if r.method == "dgs" and r.density > found.best.density]
    assert all(row.rate < 0.9 * fastest for row in denser)
    assert found.worth == "yes"
    assert f"Recommended: {found.best.name}" in text(found, None)


def test_a_slower_link_asks_for_less() -> None:
    densities = [plan(case(bandwidth)).best.density for bandwidth in (1e6, 1e8, 1e9)]
    assert densities == sorted(densities)
    assert densities[0] < densities[-1]


def test_at_the_break_even_both_are_as_fast() -> None:
    found = plan(case(3e8))
    assert 3e8 < found.break_even < math.inf
    asynchronous, synchronous = rates_at(found.case, found.best, found.dense, found.break_even)
    assert asynchronous == pytest.approx(synchronous, rel=1e-3)
    for factor, better in ((0.5, True), (2.0, False), (100.0, False)):
        asynchronous, synchronous = rates_at(found.case, found.best, found.dense, factor * found.break_even)
        assert (asynchronous > synchronous) == better


def test_it_says_when_it_is_not_worth_it() -> None:
    found = plan(case(4e11))
    assert found.worth == "no"
    assert found.recommended is found.dense
    assert found.break_even < 4e11
    printed = text(found, None)
    assert "Not worth it: dense all-reduce" in printed
    assert "Recommended" not in printed


def test_little_gain_is_called_little() -> None:
    limit = plan(case(3e8)).break_even
    found = plan(case(0.9 * limit))
    assert found.worth == "hardly"
    assert found.recommended is found.dense
    assert "Hardly worth it" in text(found, None)


def test_where_dense_is_better_at_any_bandwidth() -> None:
    crowd = case(1e8, 64, layout=layout_of("1M"), density_down=1.0)
    found = plan(crowd, densities=[0.5], codecs=["float32"])
    assert (found.worth, found.break_even) == ("no", 0.0)
    assert "at any bandwidth dense is the better choice" in text(found, None)


def test_where_dense_is_worse_at_any_bandwidth() -> None:
    found = plan(case(1e9, straggler=4.0))
    assert found.break_even == math.inf
    assert "dense is slower at any bandwidth" in text(found, None)
    assert record(found, None)["break_even"] is None


def test_what_was_not_measured_is_said() -> None:
    found = plan(case(1e9), densities=[0.001])
    assert found.worth == "yes"
    assert "What a density below 1 % costs in accuracy was not measured" in text(found, None)


def test_one_worker_needs_no_network() -> None:
    found = plan(case(1e6, workers=1))
    assert found.dense.bytes_up == 0
    assert found.worth == "no"
    assert "Not worth it: one worker" in text(found, None)


def test_a_row_adds_up() -> None:
    found = plan(case(1e8, jitter=0.2))
    for row in found.rows:
        assert row.step == pytest.approx(found.case.workers / row.rate, rel=0.02)
        assert min(row.select, row.up, row.waiting, row.rate) >= 0


def test_the_refusals_are_the_library_s() -> None:
    with pytest.raises(ConfigError, match="codec must be one of"):
        plan(case(1e9), codecs=["float8"])
    with pytest.raises(ConfigError, match="density must be"):
        plan(case(1e9), densities=[0.0])
    for wrong in ({"workers": 0}, {"step_time": 0.0}, {"jitter": -1.0}, {"cores": 0}, {"straggler": 0.0}):
        with pytest.raises(ConfigError, match="must be"):
            replace(case(1e9), **wrong)


def test_samples_and_json() -> None:
    found = plan(case(1e9))
    assert f"{64 * found.best.rate:,.4g}" in text(found, 64)
    told = json.loads(json.dumps(record(found, 64)))
    assert told["recommended"] == found.recommended.name
    assert [row["name"] for row in told["rows"]] == [row.name for row in found.rows]
    assert len({row.name for row in found.rows}) == len(found.rows)
