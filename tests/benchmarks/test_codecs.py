# SPDX-License-Identifier: Apache-2.0
"""The codecs' stability in its short version (whole: docs/codecs.md), and that its benchmarks run and resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dgs_ext.wire import Codec

pytest.importorskip("tqdm")

STEPS = 2000  # each coordinate is among the 1 % about twenty times


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("mode", ["dgs", pytest.param("dgc", marks=pytest.mark.slow)])
def test_every_codec_that_is_not_refused_is_stable_on_heavy_tails(scripts: Path, mode: str) -> None:
    from stability import CODECS, Case, outcome, stable

    assert len(CODECS) == 7
    cases = [
        Case(mode, 0.7, "heavy", codec, "up" if codec is Codec.SIGN else "both", STEPS) for codec in CODECS
    ]
    _, reference = outcome(cases[0].reference)
    assert 0 < reference.loss < 0.1, "it has learnt something"
    for case in cases:
        _, found = outcome(case)
        assert stable(found, reference), f"{case.key}: {found} against {reference}"


def test_what_is_refused_is_not(scripts: Path) -> None:
    from stability import Case, outcome, stable

    case = Case("dgs", 0.9, "heavy", Codec.SIGN, "down", STEPS)
    assert not stable(outcome(case)[1], outcome(case.reference)[1])


def test_the_rule_keeps_many_workers_as_near_as_a_dense_pull_would(scripts: Path) -> None:
    import frontier
    from least_squares import Training

    def behind(name: str) -> tuple[float, float]:
        found = Training("dgs", 0.7, Codec.FLOAT32, frontier.rules(16)[name]).run(1000)
        return found.pushes, found.bytes_down

    sparse, dense, rule = (behind(name)[0] for name in ("1 %", "dense", "any codec, 4 pushes' bytes"))
    assert rule < 1.3 * dense < sparse
    assert behind("any codec, 4 pushes' bytes")[1] <= 4.05


def test_stability_runs_and_goes_on(
    scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import stability

    def run() -> str:
        stability.main(["--smoke", "--out", str(tmp_path)])
        return capsys.readouterr().out

    printed = run()
    assert "of 25 runs are stable" in printed
    lines = (tmp_path / "stability.jsonl").read_text().splitlines()
    assert len(lines) == 25
    (tmp_path / "stability.jsonl").write_text("\n".join(lines[:-3]) + '\n{"key": "dgs 0.7')
    assert run() == printed


def test_the_frontier_runs_and_goes_on(
    scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import frontier

    def run() -> str:
        frontier.main(["--smoke", "--out", str(tmp_path)])
        return capsys.readouterr().out

    printed = run()
    assert "4: any codec, 4 pushes' bytes" in printed
    assert "1 %: level4" in printed
    rows = [json.loads(line) for line in (tmp_path / "frontier.jsonl").read_text().splitlines()]
    of_one_budget = [row["bytes"] for row in rows if row["key"].startswith("up") and row["bytes"] > 3000]
    assert len(of_one_budget) == 8
    assert max(of_one_budget) < 1.05 * min(of_one_budget)
    assert run() == printed
    assert len((tmp_path / "frontier.jsonl").read_text().splitlines()) == len(rows)
