# SPDX-License-Identifier: Apache-2.0
"""init_server as a user meets it: what `net` holds at the end, and how a run is told to end."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import nn
from waiting import until

import dgs
from dgs.buffers import BufferStore, pack
from dgs.layout import Layout
from dgs.server.evaluation import Evaluator
from dgs.server.state import ServerState, Snapshot
from dgs.transport import InProcessListener


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2).requires_grad_(False))


def train(listener: InProcessListener, net: nn.Module, steps: int) -> None:
    with dgs.GradientSGD(
        net.parameters(), 0.1, net, dial=lambda _: listener.dial(), density=1.0
    ) as optimizer:
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()


def test_a_slow_on_version_that_loads_the_net_does_not_undo_the_end() -> None:
    served, mine, listener = network(0), network(1), InProcessListener()

    def slow(snapshot: dgs.ModelSnapshot) -> None:
        time.sleep(0.3)
        snapshot.load_into(served)

    worker = threading.Thread(target=train, args=(listener, mine, 5))
    worker.start()
    report = dgs.init_server(None, served, on_version=slow, listener=listener, world_size=2, buffers="none")
    worker.join()
    assert report.version == 5
    for a, b in zip(served.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_last_on_version_sees_the_statistics_that_the_goodbyes_bring() -> None:
    listener, seen = InProcessListener(), []
    served, mine = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))

    def worker() -> None:
        optimizer = dgs.GradientSGD(
            mine.parameters(), 0.1, mine, dial=lambda _: listener.dial(), buffers_every=1000
        )
        while not optimizer.done:
            optimizer.zero_grad()
            mine(torch.rand(8, 3)).square().sum().backward()
            optimizer.step()
        time.sleep(0.4)  # an evaluation of this version could begin now, without the statistics
        optimizer.close()

    thread = threading.Thread(target=worker)
    thread.start()
    dgs.init_server(
        None,
        served,
        on_version=lambda s: seen.append(s),
        every=5,
        max_version=10,
        listener=listener,
        world_size=2,
    )
    thread.join()
    assert seen[-1].version == 10 and [s.version for s in seen].count(10) == 1
    for name, statistic in mine.named_buffers():
        assert torch.equal(seen[-1].buffers[name], statistic)
        assert torch.equal(served.get_buffer(name), statistic)


def test_so_it_does_when_the_last_push_comes_before_an_earlier_version_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, spec, seen = torch.ones(1), [("mean", "float32", (1,))], []
    state = ServerState(Layout([("w", (1,))]), one, device=torch.device("cpu"), max_version=2)
    store = BufferStore(spec, {"mean": one}, "mean")
    snapshot = state.snapshot

    def late() -> Snapshot:
        state.push_dense(one)
        return snapshot()

    monkeypatch.setattr(state, "snapshot", late)
    state.push_dense(one)
    with Evaluator(state, store, seen.append, 1):
        until(lambda: state.done)
        time.sleep(0.2)  # the first of the two could be seen now, without the statistics
        store.update(1, pack({"mean": 7 * one}, spec))
    assert [(s.version, float(s.buffers["mean"])) for s in seen] == [(2, 7.0)]


def test_a_snapshot_holds_frozen_parameters_as_well() -> None:
    served, shown, listener = network(0), network(2), InProcessListener()
    worker = threading.Thread(target=train, args=(listener, network(1), 1))
    worker.start()
    dgs.init_server(None, served, on_version=lambda s: s.load_into(shown), listener=listener, world_size=2)
    worker.join()
    for a, b in zip(served.parameters(), shown.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_open_run_is_told_to_end() -> None:
    listener, stop, reports = InProcessListener(), threading.Event(), []
    server = threading.Thread(
        target=lambda: reports.append(dgs.init_server(None, network(0), listener=listener, stop=stop))
    )
    server.start()
    train(listener, network(1), 3)
    assert server.is_alive(), "without a world size it goes on"
    stop.set()
    server.join(30)
    assert reports and reports[0].version == 3


def test_workers_without_a_rank_that_come_one_after_another_are_two() -> None:
    listener, reports = InProcessListener(), []
    server = threading.Thread(
        target=lambda: reports.append(dgs.init_server(None, network(0), listener=listener, world_size=3))
    )
    server.start()
    train(listener, network(1), 1)
    train(listener, network(2), 1)
    server.join(30)
    assert reports and sorted(w.rank for w in reports[0].workers) == [1, 2]
