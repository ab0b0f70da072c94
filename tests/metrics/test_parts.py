# SPDX-License-Identifier: Apache-2.0
"""The parts of what a run shows: counting, what a worker may tell, the line that is shown."""

from __future__ import annotations

import io
import logging
import re
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from dgs.errors import ConfigError, ProtocolError
from dgs.metrics import Collector, Evaluation, Event, Record, Summary, WorkerSummary
from dgs.metrics.alone import _Process
from dgs.metrics.progress import Progress
from dgs.metrics.text import clock_time, measured, size
from dgs.observed import Observed
from dgs.observer import Exchanged, Told, heard


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def collector(clock: Clock) -> Collector:
    made = Collector(1000, 100, 1.0, clock)
    made.joined(_Process(rank=1))
    return made


def test_rates_and_means_are_of_the_interval() -> None:
    clock, worker = Clock(), _Process(rank=1)
    made = collector(clock)
    for version, age in ((1, 0), (2, 4)):
        made.exchanged(worker, Exchanged(version, age, 50, 100, 0.01))
    made.told(worker, Told(2.0, 0.5, 64, 3.0))
    clock.now += 4
    first = made.record()
    assert first is not None
    assert (first.loss, first.staleness, first.waiting, first.steps_per_second) == (3.0, 2.0, 0.25, 0.5)
    assert (first.compression_up, first.compression_down, first.samples_per_second) == (20.0, 10.0, 32.0)
    assert made.record() is None  # no time has passed
    made.exchanged(worker, Exchanged(12, 1, 50, 100, 0.01))
    made.told(worker, Told(4.0, 1.5, 96, 1.0))
    clock.now += 5
    second = made.record()
    assert second is not None
    assert (second.loss, second.staleness, second.waiting) == (1.0, 1.0, 0.5)
    assert second.samples == 96 and second.steps_per_second == 2.0
    assert second.eta == pytest.approx(88 * 5 / 10)


def test_a_worker_is_asked_once_an_interval() -> None:
    clock = Clock()
    made = collector(clock)
    asked = [made.due(1), made.due(1)]
    clock.now += 1
    assert [*asked, made.due(1)] == [True, False, True]


def test_another_process_at_a_rank_adds_to_its_samples_and_bytes() -> None:
    first, second, resumed = (_Process(rank=1, bytes_up=up, bytes_down=2 * up) for up in (0, 0, 30))
    made = Collector(1000, 100, 1.0, Clock())
    made.joined(first)
    made.told(first, Told(10.0, 1.0, 100))
    first.bytes_up, first.bytes_down = 500, 1000
    made.joined(second)
    made.told(second, Told(1.0, 0.1, 30))
    second.bytes_up, second.bytes_down = 30, 60
    made.joined(resumed)  # with a copy of the record before it
    resumed.bytes_up, resumed.bytes_down = 31, 62
    found = made.workers()[0]
    assert (found.samples, found.seconds, found.bytes_up, found.bytes_down) == (130, 11.0, 531, 1062)


@pytest.mark.parametrize(
    "told",
    [
        [],
        {"seconds": 1, "waiting": 0},
        {"seconds": -1, "waiting": 0, "samples": 1},
        {"seconds": 1, "waiting": float("nan"), "samples": 1},
        {"seconds": 1, "waiting": 0, "samples": True},
        {"seconds": 1, "waiting": 0, "samples": 1, "measured": {"x": "1"}},
        {"seconds": 1, "waiting": 0, "samples": 1, "measured": {"x" * 65: 1}},
    ],
)
def test_what_no_worker_tells_is_refused(told: Any) -> None:
    with pytest.raises(ProtocolError, match="told"):
        heard(told)


def test_what_is_observed_is_weighted_by_samples_and_told_once() -> None:
    seen = Observed()
    seen.batch(torch.tensor(1.0), 10)
    seen.batch(4.0, 20)
    told = seen.take(0.5)
    assert (told["loss"], told["samples"], told["waiting"]) == (3.0, 30, 0.5)
    again = seen.take(0.5)
    assert "loss" not in again and again["samples"] == 30


def test_a_loss_that_is_no_number_is_refused_by_shape() -> None:
    with pytest.raises(ConfigError, match=r"observe: loss must be one number, got a tensor of shape \(2,\)"):
        Observed().batch(torch.zeros(2), 1)


ROW = Record(0, 5.0, 10, 2, 320, 64.0, 2.0, 0.5, 1.0, 11_000, 50_000, 76.0, 40.0, 0.3, 95.0)
WORKER = WorkerSummary(
    rank=1, outcome="finished", reason="", exchanges=40, version=40, staleness=0, mean_staleness=0.75,
    bytes_up=11_000, bytes_down=50_000, pushed=10_000, pulled=20_000, samples=0, seconds=60.0, samples_per_second=0.0,
    loss=None, waiting=0.2, exchange_seconds=0.1, residual=0.0, behind=0.0,
)  # fmt: skip
WENT_ON = Summary(10, 5.0, None, (WORKER,))
OVER = Summary(200, 60.0, "finished", (WORKER,), {0: 10, 1: 30})
FOUND = Evaluation(0, 5.0, 10, 0, 0, {"accuracy": 0.5})
LAST = replace(
    ROW, seconds=60.0, version=200, workers=0, samples=6000, samples_per_second=0.0, staleness=None
)


def test_off_a_terminal_there_is_a_line_now_and_then_and_one_of_the_whole_run() -> None:
    clock, out = Clock(), io.StringIO()
    shown = Progress("dgs", 200, out, clock)
    for _ in range(3):
        shown.record(ROW, WENT_ON)
    shown.event(Event(0, 5.0, 10, 2, "joined"))
    shown.event(Event(0, 5.0, 10, 2, "died", "closed by peer"))
    shown.evaluation(FOUND)
    clock.now += 10
    shown.record(replace(ROW, loss=None, waiting=None), WENT_ON)
    for seconds in (60.0, 75.0, 90.0):  # the last evaluation, which is no part of the training
        shown.record(replace(LAST, seconds=seconds), OVER)
        clock.now += 10
    shown.close(OVER)
    bytes_ = "up 10.0 kB (1/76), down 20.0 kB (1/40)"
    assert out.getvalue().splitlines() == [
        f"dgs 10/200  0:05, 1:35 left, 64 samples/s, loss 0.500, staleness 1.0, {bytes_}, waiting 30%, 2 workers",
        "dgs worker 2 died at version 10: closed by peer",
        "dgs 10/200  0:05, 1:35 left, 64 samples/s, loss 0.500, accuracy 50.0%, staleness 1.0, "
        f"{bytes_}, waiting 30%, 2 workers",
        f"dgs 200/200  1:15, finishing, loss 0.500, accuracy 50.0%, {bytes_}",
        "dgs 200/200  in 1:00, 100 samples/s, loss 0.500, accuracy 50.0%, staleness 0.8, "
        f"{bytes_}, waiting 20%, 1 worker",
    ]


class Terminal(io.StringIO):
    """Lines as they stand in the end, after carriage returns and moves upwards."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        rows, row = [""], 0
        for part in re.findall(r"\x1b\[A|[\r\n]|[^\r\n\x1b]+", self.getvalue()):
            if part == "\x1b[A":
                row -= 1
            elif part == "\n":
                row += 1
                rows += [""] * (row == len(rows))
            elif part != "\r":
                rows[row] = part + rows[row][len(part) :]
        return [text.rstrip() for text in rows]


def test_a_terminal_has_one_bar_and_all_of_it_in_80_columns() -> None:
    pytest.importorskip("tqdm")
    out = Terminal()
    shown = Progress("dgs", 200, out, Clock())
    shown.record(ROW, WENT_ON)
    shown.evaluation(FOUND)
    shown.event(Event(0, 5.0, 10, 2, "died", "closed by peer"))
    shown.record(replace(ROW, version=100, eta=None), WENT_ON)
    assert out.lines() == [
        "worker 2 died at version 10: closed by peer",
        "dgs  50%|#####     | 100/200 0:05, 64 samples/s, loss 0.500",
        "  staleness 1.0, up 10.0 kB (1/76), down 20.0 kB (1/40), waiting 30%, 2 workers",
        "  accuracy 50.0%",
    ]
    shown.record(LAST, OVER)
    assert out.lines()[1:3] == [
        "dgs 100%|##########| 200/200 1:00, finishing, loss 0.500",
        "  up 10.0 kB (1/76), down 20.0 kB (1/40)",
    ]
    shown.close(OVER)
    assert out.lines() == [
        "worker 2 died at version 10: closed by peer",
        "dgs 100%|##########| 200/200 in 1:00, 100 samples/s, loss 0.500",
        "  staleness 0.8, up 10.0 kB (1/76), down 20.0 kB (1/40), waiting 20%, 1 worker",
        "  accuracy 50.0%",
        "",
    ]
    assert max(map(len, out.lines())) < 80


def test_what_is_logged_goes_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    handler, root = logging.StreamHandler(out), logging.getLogger()
    root.addHandler(handler)
    try:
        shown = Progress("dgs", 200, out, Clock())
        shown.record(ROW, WENT_ON)
        root.warning("worker 3 joins again")
        shown.close(OVER)
        root.warning("after the end")
        assert handler in root.handlers
    finally:
        root.removeHandler(handler)
    first, bar, under, last, _ = out.lines()
    assert (first, last) == ("worker 3 joins again", "after the end")
    assert bar.startswith("dgs   5%|") and under.startswith("  staleness")


def test_times_and_sizes_as_people_read_them() -> None:
    assert [clock_time(s) for s in (0, 61, 3661)] == ["0:00", "1:01", "1:01:01"]
    assert [size(n) for n in (12, 1500, 123_456, 2.5e9)] == ["12 B", "1.5 kB", "123 kB", "2.5 GB"]
    assert [measured("top-1 accuracy", 0.931), measured("accuracy", 93.1), measured("loss", 0.1)] == [
        "93.1%",
        "93.1",
        "0.1",
    ]
