# SPDX-License-Identifier: Apache-2.0
"""init_server with checkpoint_dir: it writes, it goes on from there, and what it writes loads into the bare model."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from waiting import until

import dgs
from dgs.checkpoint import Checkpoints, files
from dgs.errors import CheckpointError, ConfigError
from dgs.server import ending
from dgs.transport import InProcessListener


class Net(nn.Module):
    """Tied and frozen parameters, and batch-norm statistics."""

    def __init__(self, seed: int, hidden: int = 30) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.into = nn.Linear(40, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, 40)
        self.out.bias.requires_grad_(False)
        self.again = nn.Linear(40, hidden, bias=False)
        self.again.weight = self.into.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.out(self.norm(self.into(x))))


def steps(net: nn.Module, optimizer: dgs.GradientSGD, count: int) -> None:
    for step in range(count):
        optimizer.zero_grad()
        net(torch.randn(4, 40, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()


class Serving:
    """A server in a thread of its own."""

    def __init__(self, net: nn.Module, **settings: Any) -> None:
        self.listener, self.net = InProcessListener(), net
        self.report: dgs.Report | None = None
        self.error: Exception | None = None
        self.stop = threading.Event()
        chosen = {
            "world_size": 2,
            "grace": 5.0,
            "density": 0.05,
            "listener": self.listener,
            "stop": self.stop,
        }
        self.thread = threading.Thread(target=self._serve, args=(chosen | settings,))
        self.thread.start()

    def _serve(self, settings: dict[str, Any]) -> None:
        try:
            self.report = dgs.init_server(None, self.net, **settings)
        except dgs.DGSError as error:
            self.error = error

    def worker(self, net: nn.Module, *, connect: bool = True) -> dgs.GradientSGD:
        params = [p for p in net.parameters() if p.requires_grad]
        return dgs.GradientSGD(
            params, 0.05, net, momentum=0.5, density=0.05, dial=lambda _: self.listener.dial(), connect=connect,
            buffers_every=1,
        )  # fmt: skip

    def ended(self) -> dgs.Report:
        self.thread.join(30)
        assert self.report is not None, self.error
        return self.report


@pytest.fixture
def serving() -> Iterator[Callable[..., Serving]]:
    made: list[Serving] = []

    def start(net: nn.Module, **settings: Any) -> Serving:
        made.append(Serving(net, **settings))
        return made[-1]

    yield start
    for one in made:
        one.stop.set()
        one.thread.join(30)


def test_the_last_checkpoint_is_the_models_state_dict(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    server = serving(Net(0), checkpoint_dir=str(tmp_path))
    net = Net(1)
    optimizer = server.worker(net)
    steps(net, optimizer, 6)
    optimizer.close()
    assert server.ended().version == 6
    bare = Net(2)
    bare.load_state_dict(load_file(tmp_path / "latest" / "model.safetensors"))
    trained = server.net.state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in bare.state_dict().items())
    assert bare.norm.num_batches_tracked == 6 and not torch.equal(bare.into.weight, Net(0).into.weight)
    assert [p.name for p in Checkpoints(tmp_path).found()] == ["000001-version-0", "000002-version-6"]


def test_a_pause_goes_through_the_folder_bit_for_bit(serving: Callable[..., Serving], tmp_path: Path) -> None:
    """A worker that paused goes on without a snapshot, and ends as the one that did not pause."""
    weights = {}
    for way in ("straight", "paused"):
        settings = {"checkpoint_dir": str(tmp_path / way), "checkpoint_resume": True}
        server = serving(Net(0), **settings)
        net = Net(1)
        optimizer = server.worker(net)
        steps(net, optimizer, 4)
        if way == "paused":
            dgs.checkpoint.save(tmp_path / "worker", [net.state_dict(), optimizer.state_dict()])
            optimizer.close("paused")
            server.ended()
            server = serving(Net(8), **settings)
            net = Net(9)
            model, state = dgs.checkpoint.load(tmp_path / "worker")
            net.load_state_dict(model)
            optimizer = server.worker(net, connect=False)
            optimizer.load_state_dict(state)
            optimizer.connect()
            assert optimizer.version == 4 and optimizer.traffic.other_bytes == 0, "no snapshot"
        steps(net, optimizer, 3)
        optimizer.close()
        assert server.ended().version == 7
        weights[way] = server.net.state_dict()
    for name, tensor in weights["straight"].items():
        assert torch.equal(tensor, weights["paused"][name]), name


def test_they_come_by_the_clock_while_a_worker_trains(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    """Those between hold no mirror of a worker that is there; the last does, and it goes on without a snapshot."""
    settings = {"checkpoint_dir": str(tmp_path), "checkpoint_every": 0.02, "checkpoint_keep": 2}
    server = serving(Net(0), **settings)
    net, folder = Net(1), Checkpoints(tmp_path)
    optimizer = server.worker(net)
    for version in (1, 2):
        steps(net, optimizer, 1)
        until(
            lambda v=version: folder.found()[-1].name.endswith(f"-version-{v}"), "a checkpoint of the version"
        )  # type: ignore[misc]
    between = folder.newest()
    assert between is not None and between.server["workers"] == {}
    server.stop.set()
    assert server.ended().workers[0].outcome == "alive"
    last = folder.newest()
    assert last is not None and last.server["workers"][1]["applied"] == 2
    assert len(folder.found()) == 2, "kept"
    again = serving(Net(5), checkpoint_resume=True, **settings)
    taken = again.worker(net, connect=False)
    taken.connect()
    assert taken.version == 2 and taken.traffic.other_bytes == 0, "no snapshot"
    taken.close()


def test_a_folder_of_another_run_or_model_is_not_written_over(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    first = serving(Net(0), checkpoint_dir=str(tmp_path))
    first.worker(Net(1)).close()
    first.ended()
    before = sorted(tmp_path.iterdir())
    for hidden, resume, message in (
        (30, False, r"holds the checkpoints of a run \(00000\d-version-0\): set checkpoint_resume"),
        (
            31,
            True,
            r"is of another model: tensor 0: into.weight \[31, 40\] here, into.weight \[30, 40\] there",
        ),
    ):
        listener = InProcessListener()
        with pytest.raises(ConfigError, match=message):
            dgs.init_server(
                None,
                Net(0, hidden),
                listener=listener,
                checkpoint_dir=str(tmp_path),
                checkpoint_resume=resume,
                world_size=2,
            )
    assert sorted(tmp_path.iterdir()) == before


def test_another_method_goes_on_from_the_weights_alone(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    first = serving(Net(0), checkpoint_dir=str(tmp_path))
    net = Net(1)
    optimizer = first.worker(net)
    steps(net, optimizer, 2)
    optimizer.close("paused")
    assert 1 in first.ended().state["workers"]
    again = serving(Net(3), checkpoint_dir=str(tmp_path), checkpoint_resume=True, mode="asgd")
    params = [p for p in net.parameters() if p.requires_grad]
    other = dgs.GradientSGD(params, 0.05, net, mode="asgd", dial=lambda _: again.listener.dial())
    assert other.version == 2 and other.traffic.other_bytes > 0
    steps(net, other, 1)
    other.close()
    assert again.ended().version == 3


def test_a_full_disk_is_told_first_and_last_and_stops_no_training(
    serving: Callable[..., Serving], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    server = serving(Net(0), checkpoint_dir=str(tmp_path), checkpoint_every=0.02)
    net = Net(1)
    optimizer = server.worker(net)
    until(lambda: Checkpoints(tmp_path).found(), "the first")
    whole = files.sync

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with caplog.at_level(logging.ERROR):
        steps(net, optimizer, 1)
        until(lambda: "training goes on" in caplog.text, "an error in the log")
        steps(net, optimizer, 1)
        optimizer.close()
        server.thread.join(30)
    assert isinstance(server.error, CheckpointError) and "No space left" in str(server.error)
    assert not torch.equal(server.net.into.weight, Net(0).into.weight), (
        "the trained model is there all the same"
    )
    assert [p.name for p in Checkpoints(tmp_path).found()] == ["000001-version-0"]
    monkeypatch.setattr(files, "sync", whole)
    (tmp_path / "file").write_text("")
    listener = InProcessListener()
    with pytest.raises(CheckpointError, match="no checkpoint can be written"):
        dgs.init_server(
            None, Net(0), listener=listener, checkpoint_dir=str(tmp_path / "file" / "folder"), world_size=2
        )
    with pytest.raises(Exception, match="closed"):
        listener.dial()


@pytest.mark.parametrize("workers", ["that goes on", "that leaves"])
def test_sigterm_ends_a_server_in_order(
    tmp_path: Path, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears the goodbyes that come at once, writes the last checkpoint and loads `net`: then it is SystemExit."""
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    listener, net, mine = InProcessListener(), Net(0), Net(1)
    optimizers: list[dgs.GradientSGD] = []
    monkeypatch.setattr(ending, "_GOODBYES", 0.2 if workers == "that goes on" else 60.0)

    def work() -> None:
        params = [p for p in mine.parameters() if p.requires_grad]
        optimizer = dgs.GradientSGD(params, 0.05, mine, momentum=0.5, dial=lambda _: listener.dial())
        optimizers.append(optimizer)
        steps(mine, optimizer, 3)
        os.kill(os.getpid(), signal.SIGTERM)
        if workers == "that leaves":
            optimizer.close("left")

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(SystemExit) as ended:
        dgs.init_server(None, net, listener=listener, checkpoint_dir=str(tmp_path), grace=600.0)
    thread.join(30)
    assert ended.value.code == 143 and len(optimizers) == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    last = Checkpoints(tmp_path).newest()
    assert last is not None and last.about["version"] == 3
    assert all(torch.equal(t, last.model[name]) for name, t in net.state_dict().items())
    assert set(last.server["workers"]) == ({1} if workers == "that goes on" else set())
    assert not [t.name for t in threading.enumerate() if t.name in ("dgs-ending", "dgs-checkpoints")]
