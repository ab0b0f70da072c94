# SPDX-License-Identifier: Apache-2.0
"""The page of one or several runs: whole, self-contained, and true to the files."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

import dgs
from dgs.errors import ConfigError
from dgs.report import page, read
from dgs.report.svg import lines


class Balanced(HTMLParser):
    """Counts elements, and fails where one is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "first", tmp_path / "<second>"]
    for folder in folders:
        model = nn.Linear(4, 2)
        optimizer = dgs.GradientSGD(
            model.parameters(), 0.1, model, mode="sgd", run_dir=str(folder), metrics_every=0.01
        )
        for step in range(4):
            optimizer.step()
            optimizer.observe(torch.tensor(4.0 - step), samples=2)
            optimizer.evaluated(accuracy=step / 4)
        optimizer.close()
    return folders


def test_the_page_is_whole_and_asks_for_nothing(runs: list[Path]) -> None:
    text = page([read(folder) for folder in runs])
    parsed = Balanced()
    parsed.feed(text)
    assert parsed.open == []
    assert not [tag for tag, attrs in parsed.seen if tag in ("script", "link", "img") or "src" in attrs]
    assert "<second>" not in text and "&lt;second&gt;" in text
    assert len([tag for tag, _ in parsed.seen if tag == "polyline"]) >= 4  # accuracy by time and by steps
    assert "finished" in text and "prefers-color-scheme:dark" in text


def test_the_command_writes_it(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    command = [sys.executable, "-m", "dgs.report", *map(str, runs), "--out", str(out)]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert out.read_text() == page([read(folder) for folder in runs])


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run's folder"):
        read(tmp_path)


def test_a_line_under_way_is_left_for_the_next_look(runs: list[Path]) -> None:
    before = read(runs[0]).records
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1')
    assert read(runs[0]).records == before


def test_a_curve_spans_its_figure() -> None:
    drawn = lines([[(0.0, 0.0), (10.0, 5.0)]], "seconds", "loss")
    assert 'points="52.0,210.0 448.0,10.0"' in drawn
    assert lines([[]], "seconds", "loss") == ""
