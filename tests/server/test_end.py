# SPDX-License-Identifier: Apache-2.0
"""When the server returns, what it reports, and that it leaves nothing open."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from waiting import until

import dgs
from dgs import weights
from dgs.errors import ConfigError, LinkClosedError, ServerLostError, TransportError
from dgs.server import ModelSnapshot
from dgs.transport import InProcessLink, InProcessListener, Link

if TYPE_CHECKING:
    from conftest import Run

SECONDS = timedelta(seconds=30)


def test_it_returns_when_every_worker_has_finished(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve()
    a, b = run.puppet(1).join(), run.puppet(2).join()
    a.push_some(random)
    a.worker.close()
    time.sleep(0.5)
    assert run.thread.is_alive(), "the other is still at it, for longer than the grace"
    b.push_some(random)
    b.worker.close()
    report = run.returned()
    assert (report.version, report.died) == (2, [])
    assert [(w.rank, w.outcome, w.exchanges) for w in report.workers] == [
        (1, "finished", 1),
        (2, "finished", 1),
    ]


def test_workers_that_come_one_after_the_other_are_a_run(serve: Callable[..., Run]) -> None:
    run = serve(grace=60)
    for rank in (1, 2):
        run.puppet(rank).join().worker.close()
        assert run.server.active() == 0, "whose close has returned has left"
    assert [w.rank for w in run.returned().workers] == [1, 2]


def test_a_goodbye_is_answered_even_before_the_reply_to_a_push_was_taken(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    """As by a worker that a second SIGTERM reaches: when `close` returns it has left, and its push is applied."""
    run = serve()
    for rank in (1, 2):
        puppet = run.puppet(rank).join()
        update = weights.received(
            run.layout, torch.tensor([3, 900]), torch.tensor([1.0, -2.0]), puppet.w.device
        )
        puppet.worker.push(update, puppet.codec, 0.1, puppet.digest())
        puppet.worker.close()
        assert (run.server.active(), run.state.version) == (0, rank)
    assert [w.outcome for w in run.returned().workers] == ["finished"] * 2


def test_the_echo_of_a_goodbye_waits_no_longer_than_the_worker(
    serve: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that freezes behind its goodbye is beyond the reach of heartbeats, and must not hold up the end."""
    sent: list[tuple[str, timedelta]] = []
    send = InProcessLink.send

    def noted(self: InProcessLink, frame: Tensor, timeout: timedelta) -> None:
        sent.append((threading.current_thread().name, timeout))
        send(self, frame, timeout)

    monkeypatch.setattr(InProcessLink, "send", noted)
    run = serve(world_size=2, exchange_timeout=60.0)
    run.puppet(1).join().worker.close()
    run.returned()
    limits = [timeout.total_seconds() for name, timeout in sent if name == "dgs-session"]
    assert limits == [60, 60, 10], "snapshot, buffers, echo"


def test_it_waits_for_the_grace_when_none_is_alive_and_reports_who_died(
    serve: Callable[..., Run], random: torch.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    run = serve(grace=0.6)
    a, b = run.puppet(1).join(), run.puppet(2).join()
    b.push_some(random)
    a.worker.close()
    began = time.monotonic()
    b.link.close()
    report = run.returned()
    assert time.monotonic() - began >= 0.6
    assert report.died == [2] and [w.outcome for w in report.workers] == ["finished", "died"]
    assert "no worker has been alive for 0.6 s; 1 finished" in caplog.text
    assert "worker 2 died at version 1" in caplog.text


def test_one_that_comes_within_the_grace_goes_on(serve: Callable[..., Run], random: torch.Generator) -> None:
    run = serve(world_size=2, grace=60)
    run.puppet(1).join().link.close()
    until(lambda: run.server.active() == 0)
    again = run.puppet(1).join()
    again.push_some(random)
    again.worker.close()
    assert [w.outcome for w in run.returned().workers] == ["died", "finished"]


def test_a_failed_worker_has_not_finished(serve: Callable[..., Run]) -> None:
    run = serve(world_size=2, grace=0.2)
    run.puppet(1).join().worker.close("failed", "ValueError('no')")
    report = run.returned()
    assert [(w.outcome, w.reason) for w in report.workers] == [("failed", "ValueError('no')")]
    assert report.died == []


def test_it_returns_when_nobody_came(serve: Callable[..., Run], caplog: pytest.LogCaptureFixture) -> None:
    report = serve(join_timeout=0.3).returned()
    assert report.workers == () and report.version == 0
    assert "no worker came within 0.3 s" in caplog.text


def test_without_a_world_size_it_serves_until_told(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve(world_size=None, grace=0.1)
    for _ in range(2):
        puppet = run.puppet(None).join()
        puppet.push_some(random)
        puppet.worker.close()
        time.sleep(0.4)
    assert run.thread.is_alive()
    held = run.puppet(None).join()
    report = run.end()
    assert report.version == 2 and [w.outcome for w in report.workers] == ["finished", "finished", "alive"]
    with pytest.raises(TransportError):
        held.push_some(random)
    with pytest.raises(ServerLostError):
        held.worker.rejoin()


def test_a_silent_worker_is_dropped_and_the_others_never_notice(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve(heartbeat=0.05, heartbeat_timeout=100)
    silent, busy = run.puppet(1).join(), run.puppet(2).join()
    _lose_time(run, 1, 60)
    until(lambda: _silence(run, 1) < 50, "a beat")
    assert silent.worker._heart is not None
    silent.worker._heart.stop()
    _lose_time(run, 1, 200)

    def dropped() -> bool:
        busy.push_some(random)
        return run.server.active() == 1

    until(dropped, "the silent worker was dropped")
    busy.push_some(random)
    with pytest.raises(LinkClosedError):
        silent.push_some(random)
    busy.worker.close()
    died = run.returned().workers[0]
    assert died.outcome == "died" and "no sign of life for " in died.reason


def test_a_session_that_cannot_be_woken_holds_up_neither_its_rank_nor_the_end(
    serve: Callable[..., Run], random: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgs.server.session._STUCK", 0.2)
    run = serve(heartbeat=0.05, heartbeat_timeout=100, world_size=2)
    gone = run.puppet(1).join()
    gone.push_some(random)
    session = run.server._roster.sessions()[0]
    session.link.interrupt = lambda: None  # type: ignore[method-assign]
    assert gone.worker._heart is not None
    gone.worker._heart.stop()
    _lose_time(run, 1, 200)
    until(lambda: run.server.active() == 0, "the worker was given up")
    assert session.thread is not None and session.thread.is_alive()
    back = run.puppet(1).join()
    before = run.now()
    with pytest.raises(TransportError):
        gone.push_some(random)
    assert torch.equal(run.now(), before), "a session that was given up applies nothing"
    back.push_some(random)
    back.worker.close()
    report = run.returned()
    assert [w.outcome for w in report.workers] == ["died", "finished"]


def _lose_time(run: Run, rank: int, seconds: float) -> None:
    """As if so much more had passed since the worker's last beat."""
    link = next(s.link for s in run.server._roster.sessions() if s.worker.rank == rank)
    assert isinstance(link, InProcessLink)
    link._beaten -= seconds


def _silence(run: Run, rank: int) -> float:
    return next(s.link.silence() for s in run.server._roster.sessions() if s.worker.rank == rank)


def test_a_beating_worker_may_be_silent_as_long_as_it_likes(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve(heartbeat=0.05, heartbeat_timeout=100)
    puppet = run.puppet(1).join()
    for _ in range(4):
        _lose_time(run, 1, 60)
        until(lambda: _silence(run, 1) < 50, "a beat")
    assert puppet.push_some(random).applied


class _Broken(InProcessListener):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.fail = threading.Event()

    def accept(self, timeout: timedelta) -> Link | None:  # type: ignore[override]
        if self.fail.is_set():
            raise OSError("the network card is on fire")
        return super().accept(timeout)

    def close(self) -> None:
        self.closed = True
        super().close()


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def _step(net: nn.Module, optimizer: dgs.GradientSGD) -> None:
    net(torch.randn(4, 8)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_everything_is_closed_after_an_exception_and_the_model_is_loaded() -> None:
    before = set(threading.enumerate())
    listener, net, errors = _Broken(), _net(), []
    start = [p.detach().clone() for p in net.parameters()]

    def serve() -> None:
        try:
            dgs.init_server(None, net, listener=listener, world_size=2, rank=0)
        except OSError as error:
            errors.append(str(error))

    thread = threading.Thread(target=serve)
    thread.start()
    model = _net()
    optimizer = dgs.GradientSGD(
        model.parameters(),
        0.1,
        model,
        rank=1,
        world_size=2,
        rejoin_timeout=0.1,
        dial=lambda t: listener.dial(),
    )
    _step(model, optimizer)
    listener.fail.set()
    thread.join(30)
    assert errors == ["the network card is on fire"] and listener.closed
    assert any(not torch.equal(a, b) for a, b in zip(start, net.parameters(), strict=True))
    with pytest.raises(ServerLostError, match="could not be joined again"):
        _step(model, optimizer)
    optimizer.close()
    until(lambda: set(threading.enumerate()) <= before, "all threads have ended")


def test_on_version_is_called_while_training_goes_on_and_its_errors_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener, net = InProcessListener(), _net()
    seen: list[ModelSnapshot] = []

    def look(snapshot: ModelSnapshot) -> None:
        seen.append(snapshot)
        if len(seen) == 1:
            raise ValueError("a mistake of the user's")

    results: list[dgs.Report] = []
    thread = threading.Thread(
        target=lambda: results.append(
            dgs.init_server(
                None, net, listener=listener, on_version=look, every=5, world_size=2, max_version=20, rank=0
            )
        )
    )
    thread.start()
    model = _net()
    with dgs.GradientSGD(
        model.parameters(), 0.1, model, rank=1, world_size=2, buffers_every=1, dial=lambda t: listener.dial()
    ) as optimizer:
        while not optimizer.done:
            _step(model, optimizer)
            if optimizer.version == 5:
                time.sleep(0.3)
    thread.join(30)
    assert results[0].version == 20
    versions = [s.version for s in seen]
    assert versions == sorted(set(versions)) and versions[0] >= 5 and versions[-1] == 20
    assert "on_version failed at version" in caplog.text and "a mistake of the user's" in caplog.text
    last = seen[-1]
    for name, parameter in net.named_parameters():
        assert torch.equal(last.parameters[name], parameter)
    shown = _net()
    last.load_into(shown)
    assert all(torch.equal(a, b) for a, b in zip(shown.parameters(), net.parameters(), strict=True))
    assert torch.equal(model[1].running_mean, net[1].running_mean), "buffers arrive with the goodbye"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("mode sgd has no server", {"mode": "sgd"}),
        ("init_server is for rank 0, got rank 1", {"rank": 1}),
        ("every must be at least 1, got 0", {"every": 0}),
    ],
    ids=["mode", "rank", "every"],
)
def test_settings_that_cannot_serve(text: str, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=text):
        dgs.init_server(None, _net(), listener=InProcessListener(), **wrong)  # type: ignore[arg-type]


def test_logging_goes_through_logging(
    serve: Callable[..., Run], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "dgs"):
        run = serve(world_size=2)
        run.puppet(1).join().worker.close()
        run.returned()
    assert "worker 1 joined (1 active, version 0)" in caplog.text
    assert "worker 1 finished after 0 exchanges" in caplog.text
    assert capfd.readouterr() == ("", "")
