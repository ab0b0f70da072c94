# SPDX-License-Identifier: Apache-2.0
"""The page of one or several runs: whole, self-contained, and true to the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

import dgs
from dgs.errors import ConfigError
from dgs.report import __main__ as command
from dgs.report import page, read, table
from dgs.report.axes import Axis, byte_count, decades, per_cent, ticks
from dgs.report.svg import bars, lines
from dgs.report.tables import workers


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
    assert "finished" in page([read(runs[0])])
    assert not [tag for tag, attrs in parsed.seen if tag in ("script", "link", "img") or "src" in attrs]
    assert "<second>" not in text and "&lt;second&gt;" in text
    assert len([tag for tag, _ in parsed.seen if tag == "polyline"]) >= 4  # accuracy by time and by steps
    assert "prefers-color-scheme:dark" in text


def test_the_command_writes_it(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    words = [sys.executable, "-m", "dgs.report", *map(str, runs), "--out", str(out)]
    done = subprocess.run(words, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert out.read_text() == page([read(folder) for folder in runs])


def test_a_page_of_one_run_goes_to_it_and_one_of_several_to_where_one_is(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", *map(str, runs)])
    command.main()
    assert list(tmp_path.rglob("report.html")) == [tmp_path / "report.html"]
    monkeypatch.setattr(sys, "argv", ["report", str(runs[1])])
    command.main()
    assert (runs[1] / "report.html").is_file()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run's folder"):
        read(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no run's folder .*run.json was written by something else"):
        read(tmp_path)


def test_a_page_that_cannot_be_written(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "absent" / "page.html"
    monkeypatch.setattr(sys, "argv", ["report", str(runs[0]), "--out", str(out)])
    with pytest.raises(ConfigError, match=r"--out .*page.html cannot be written: No such file"):
        command.main()


def test_a_line_under_way_is_left_for_the_next_look(runs: list[Path]) -> None:
    before = read(runs[0]).records
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1')
    assert read(runs[0]).records == before


def test_a_curve_spans_its_figure() -> None:
    drawn = lines([[(0.0, 0.0), (10.0, 5.0)]], Axis("time", time=True), Axis("loss"))
    assert 'points="54.0,208.0 426.0,12.0"' in drawn and "time (s)" in drawn
    assert lines([[], [(1.0, 1.0)]], Axis("time"), Axis("loss")) == "", "a point is no curve"


def test_an_axis_suits_what_it_shows() -> None:
    values = [1.0, 7200.0 * 3]
    hours = Axis("time", time=True).over(values, 0, 100)
    assert (hours.title, [name for _, name in hours.marks()]) == ("time (h)", ["0", "2", "4", "6"])
    size = Axis("bytes", byte_count).over([0.0, 1.7e9], 0, 100)
    assert [name for _, name in size.marks()] == ["0 B", "500 MB", "1 GB", "1.5 GB"]
    loss = Axis("loss", wide=20).over([0.02, 2.0], 0, 100)
    assert loss.axis.log and [name for _, name in loss.marks()] == [
        "0.02",
        "0.05",
        "0.1",
        "0.2",
        "0.5",
        "1",
        "2",
    ]
    accuracy = Axis("accuracy", per_cent, zero=False).over([0.9, 1.0], 0, 100)
    assert [name for _, name in accuracy.marks()] == ["90%", "92%", "94%", "96%", "98%", "100%"]
    assert [name for _, name in Axis("workers", whole=True).over([0, 2], 0, 1).marks()] == ["0", "1", "2"]
    assert len(decades(1e-9, 1e9)) <= 6 and ticks(-0.1, 0.1) == pytest.approx([-0.1, -0.05, 0.0, 0.05, 0.1])


def test_bars_stand_beside_each_other() -> None:
    drawn = bars([[0.5, 0.5], [1.0]], ["0", "1"], "staleness", Axis("part", per_cent))
    assert drawn.count("<rect") == 3 and "50%</title>" in drawn
    assert bars([[0.0], []], ["0"], "staleness", Axis("part")) == ""


def later(folder: Path) -> None:
    """Adds a record, of a second later than the last."""
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(last | {"seconds": last["seconds"] + 1}) + "\n")


def emptied(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("")
    return folder


def test_a_run_that_was_cut_off_is_said_to_be(runs: list[Path]) -> None:
    later(runs[0])
    (runs[0] / "summary.json").unlink()
    assert read(runs[0]).state == "goes on"
    for file in runs[0].iterdir():
        os.utime(file, (0, 0))
    (runs[0] / "report.html").write_text("made a moment ago")
    cut = read(runs[0])
    assert cut.state == "cut off" and "cut off" in table([cut])
    assert "cut off" in page([cut]) and "<polyline" in page([cut])


def test_a_run_without_evaluations_and_one_that_nobody_came_to_have_a_page(runs: list[Path]) -> None:
    later(runs[0])
    assert "<h2>Evaluations" in page([read(runs[0])])
    blind = read(emptied(runs[0], "evaluations.jsonl"))
    shown = page([blind])
    assert "<h2>Evaluations" not in shown
    assert "<h2>Training loss" in shown
    (runs[1] / "summary.json").unlink()
    lonely = read(emptied(runs[1], "metrics.jsonl", "evaluations.jsonl", "events.jsonl"))
    assert lonely.state == "no worker yet" and "<polyline" not in page([lonely])
    assert page([blind, lonely]).count("<polyline") == page([blind]).count("<polyline")


def test_the_table_is_aligned_and_an_accuracy_is_in_per_cent(runs: list[Path]) -> None:
    lines = table([read(folder) for folder in runs]).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    row = dict(
        zip(*([c.strip() for c in line.split("|")[1:-1]] for line in (lines[0], lines[3])), strict=True)
    )
    assert (row["run"], row["accuracy"], row["mode"]) == ("<second>", "75.0%", "sgd")


def test_a_worker_has_the_rate_of_its_whole_time(runs: list[Path]) -> None:
    run = read(runs[0])
    sums = {"bytes_up": 1, "samples": 50, "seconds": 4.0, "samples_per_second": 99.0}
    told = run.workers[0] | sums
    unseen = told | {"samples": 0, "samples_per_second": 0.0}
    earlier = {name: told[name] for name in told if name != "seconds"}  # of a version that kept none
    shown = workers([replace(run, summary=run.summary | {"workers": [told, unseen, earlier]})])
    place = shown.head.index("samples")
    assert shown.head[place + 1] == "samples/s"
    assert [row[place : place + 2] for row in shown.rows] == [["50", "12"], ["-", "-"], ["50", "-"]]


def test_a_run_without_observe_has_no_figure_of_its_samples(runs: list[Path]) -> None:
    run = read(runs[0])
    rows = [run.last | {"workers": 1, "seconds": seconds} for seconds in (1.0, 2.0)]
    assert "samples per second" in page([replace(run, records=rows)])
    unseen = [row | {"samples": 0, "samples_per_second": 0.0} for row in rows]
    assert "samples per second" not in page([replace(run, records=unseen)])
