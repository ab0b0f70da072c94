# SPDX-License-Identifier: Apache-2.0
"""A run that is watched: what it writes, shows and exports, with a real server and workers of this process."""

from __future__ import annotations

import csv
import json
import socket
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from waiting import until

import dgs
from dgs import metrics
from dgs.errors import ConfigError, PortInUseError
from dgs.metrics.record import Record
from dgs.transport import InProcessListener


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(60, 50)


def train(optimizer: dgs.GradientSGD, model: nn.Module, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 60)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.observe(loss, samples=8)


class Served:
    """A server in a thread, and one worker in the test's own."""

    def __init__(self, **settings: Any) -> None:
        self.listener = InProcessListener()
        given: dict[str, Any] = {"listener": self.listener, "world_size": 2, "metrics_every": 0.02} | settings
        self.thread = threading.Thread(target=lambda: dgs.init_server(None, net(), **given))
        self.thread.start()

    def worker(self, model: nn.Module) -> dgs.GradientSGD:
        return dgs.GradientSGD(model.parameters(), 0.01, model, dial=lambda _: self.listener.dial())


def test_a_run_leaves_its_numbers_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    served = Served(run_dir=str(folder), on_version=lambda s: {"size": 7.0}, every=1000, token="hush")
    model = net()
    optimizer = dgs.GradientSGD(
        model.parameters(), 0.01, model, dial=lambda _: served.listener.dial(), token="hush"
    )
    train(optimizer, model, 30)
    optimizer.evaluated(accuracy=0.5)
    optimizer.close()
    served.thread.join(30)
    last = lines(folder / "metrics.jsonl")[-1]
    assert last["version"] == 30 and last["samples"] == 240 and last["bytes_up"] > 0
    assert last["compression_up"] > 2
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [int(row["version"]) for row in rows] == [r["version"] for r in lines(folder / "metrics.jsonl")]
    assert [(e["event"], e["rank"]) for e in lines(folder / "events.jsonl")] == [
        ("joined", 1),
        ("finished", 1),
    ]
    values = [e["values"] for e in lines(folder / "evaluations.jsonl")]
    assert {"accuracy": 0.5} in values and {"size": 7.0} in values
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["ended"] == "finished" and summary["staleness"] == {"0": 30}
    assert "hush" not in (folder / "run.json").read_text()


def test_prometheus_is_scraped_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client")
    runs: list[metrics.Run] = []
    made = metrics.Run.__init__

    def kept(self: metrics.Run, *args: Any) -> None:
        made(self, *args)
        runs.append(self)

    monkeypatch.setattr(metrics.Run, "__init__", kept)
    served = Served(prometheus_port=0)
    model = net()
    optimizer = served.worker(model)
    train(optimizer, model, 65)  # the residual is measured every 64 pulls
    url = f"http://127.0.0.1:{runs[0].prometheus_port}/metrics"
    scraped: list[str] = []

    def seen() -> bool:
        scraped.append(urllib.request.urlopen(url, timeout=10).read().decode())
        return 'dgs_exchange_seconds_count{worker="1"} 65.0' in scraped[-1]

    until(seen, "the endpoint shows all exchanges")
    assert "dgs_version 65.0" in scraped[-1]
    for name in ("dgs_worker_version", "dgs_staleness", "dgs_received_bytes_total", "dgs_residual_norm"):
        assert f'{name}{{worker="1"}}' in scraped[-1], name
    assert 'dgs_exchange_seconds_bucket{le="+Inf",worker="1"} 65.0' in scraped[-1]
    optimizer.close()
    served.thread.join(30)
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=10)


def test_a_run_of_one_process_is_kept_as_well(tmp_path: Path) -> None:
    model = net()
    folder = tmp_path / "alone"
    optimizer = dgs.GradientSGD(model.parameters(), 0.01, model, mode="sgd", run_dir=str(folder))
    train(optimizer, model, 5)
    optimizer.evaluated(accuracy=0.25)
    optimizer.close()
    last = lines(folder / "metrics.jsonl")[-1]
    assert (last["version"], last["samples"], last["bytes_up"]) == (5, 40, 0)
    assert lines(folder / "evaluations.jsonl")[0]["values"] == {"accuracy": 0.25}


def test_a_folder_takes_one_run(tmp_path: Path) -> None:
    model = net()
    for expected in (None, "holds a run already"):
        if expected is None:
            dgs.GradientSGD(model.parameters(), 0.01, model, mode="sgd", run_dir=str(tmp_path)).close()
        else:
            with pytest.raises(ConfigError, match=expected):
                dgs.GradientSGD(model.parameters(), 0.01, model, mode="sgd", run_dir=str(tmp_path))


def test_a_run_that_goes_on_writes_beside_the_one_before(tmp_path: Path) -> None:
    model, folder = net(), tmp_path / "run"
    for _ in range(3):
        settings = {"run_dir": str(folder), "checkpoint_resume": True}
        dgs.GradientSGD(model.parameters(), 0.01, model, mode="sgd", **settings).close()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["run", "run-2", "run-3"]
    assert all((f / "summary.json").is_file() for f in tmp_path.iterdir())


def test_a_start_that_fails_leaves_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client")
    model = net()

    def begin(**settings: Any) -> dgs.GradientSGD:
        return dgs.GradientSGD(
            model.parameters(), 0.01, model, mode="sgd", run_dir=str(tmp_path / "run"), **settings
        )

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortInUseError):
        begin(prometheus_port=taken.getsockname()[1])
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(ConfigError, match=r"pip install 'dgs\[tensorboard\]'"):
            begin(tensorboard=True)
    begin().close()


def test_an_unwatched_run_is_never_asked_to_tell() -> None:
    served = Served()
    model = net()
    optimizer = served.worker(model)
    train(optimizer, model, 3)
    assert optimizer._replica is not None
    assert not optimizer._replica.session._watched
    optimizer.close()
    served.thread.join(30)


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = net()
    optimizer = dgs.GradientSGD(
        model.parameters(), 0.01, model, mode="sgd", run_dir=str(tmp_path), tensorboard=True
    )
    train(optimizer, model, 5)
    optimizer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = events.Scalars("training/loss")[-1]
    record = lines(tmp_path / "metrics.jsonl")[-1]
    assert found.step == record["version"] == 5
    assert found.value == pytest.approx(record["loss"])


def test_a_record_has_a_column_each(tmp_path: Path) -> None:
    model = net()
    dgs.GradientSGD(model.parameters(), 0.01, model, mode="sgd", run_dir=str(tmp_path)).close()
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header == list(Record.__dataclass_fields__)
