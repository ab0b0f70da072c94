# SPDX-License-Identifier: Apache-2.0
"""What a run's folder says of real processes: a worker that was killed, and the one that took its place."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgs.report import page, read

if TYPE_CHECKING:
    from conftest import Node


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_killed_worker_and_the_one_in_its_place_are_recorded(
    start: Callable[..., Node], port: int, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    server = start("server", port=port, world_size=2, run_dir=str(folder), metrics_every=0.05)
    killed = start("worker", port=port, rank=1, options={"steps": 100_000, "pause": 0.01})
    killed.event("step")
    killed.signal(signal.SIGKILL)
    server.says("worker 1 died at version")  # said once it is recorded
    again = start("worker", port=port, rank=1, options={"steps": 25})
    assert [again.ends(), server.ends()] == [0, 0]
    events = lines(folder / "events.jsonl")
    assert [(e["rank"], e["event"]) for e in events] == [
        (1, "joined"),
        (1, "died"),
        (1, "joined"),
        (1, "finished"),
    ]
    died = events[1]
    assert died["reason"] and died["version"] >= 1
    assert events[3]["version"] - died["version"] in (25, 26), "26: it died before its last push was answered"
    assert [e["seconds"] for e in events] == sorted(e["seconds"] for e in events)
    records = lines(folder / "metrics.jsonl")
    assert [r["bytes_up"] for r in records] == sorted(r["bytes_up"] for r in records), (
        "nothing is lost with the first"
    )
    (worker,) = json.loads((folder / "summary.json").read_text())["workers"]
    assert (worker["outcome"], worker["exchanges"]) == ("finished", died["version"] + 25)
    assert escape(died["reason"][:40]) in page([read(folder)])
