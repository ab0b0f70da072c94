# SPDX-License-Identifier: Apache-2.0
"""init_server that goes on from a saved state, and a state that is saved while workers push."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import dgs
from dgs import weights
from dgs.errors import ConfigError
from dgs.transport import InProcessListener


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 2))


def steps(net: nn.Module, optimizer: dgs.GradientSGD, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        net(torch.ones(2, 40)).square().sum().backward()
        optimizer.step()


def served(
    state: Any = None, **settings: Any
) -> tuple[InProcessListener, threading.Thread, list[dgs.Report]]:
    listener, reports = InProcessListener(), []
    chosen = {"listener": listener, "state": state, "world_size": 2, "grace": 60.0} | settings
    thread = threading.Thread(target=lambda: reports.append(dgs.init_server(None, network(0), **chosen)))
    thread.start()
    return listener, thread, reports


def test_a_run_goes_on_from_a_report() -> None:
    listener, thread, reports = served()
    net = network(1)
    optimizer = dgs.GradientSGD(net.parameters(), 0.01, net, momentum=0.5, dial=lambda _: listener.dial())
    steps(net, optimizer, 3)
    saved = optimizer.state_dict()
    optimizer.close("paused", "the night is over")
    thread.join(30)
    (report,) = reports
    assert [(w.rank, w.outcome, w.reason) for w in report.workers] == [(1, "paused", "the night is over")]
    assert report.version == report.state["version"] == 3

    listener, thread, reports = served(report.state)
    optimizer = dgs.GradientSGD(
        net.parameters(), 0.01, net, momentum=0.5, dial=lambda _: listener.dial(), connect=False
    )
    optimizer.load_state_dict(saved)
    optimizer.connect()
    assert optimizer.version == 3 and optimizer.traffic.other_bytes == 0, "no snapshot"
    steps(net, optimizer, 2)
    optimizer.close()
    thread.join(30)
    assert reports[0].version == 5 and reports[0].workers[0].outcome == "finished"


def test_a_running_server_is_saved_from_on_version_and_stopping_it_keeps_who_is_there() -> None:
    states: list[dict[str, Any]] = []
    stop = threading.Event()
    listener, thread, reports = served(on_version=lambda s: states.append(s.server_state()), stop=stop)
    net = network(1)
    optimizer = dgs.GradientSGD(net.parameters(), 0.01, net, dial=lambda _: listener.dial())
    steps(net, optimizer, 5)
    held = torch.cat([p.detach().view(-1) for p in net.parameters()])
    stop.set()
    thread.join(30)
    assert states and all(state["workers"][1]["applied"] == state["version"] for state in states)
    kept = reports[0].state["workers"][1]
    assert reports[0].workers[0].outcome == "alive" and torch.equal(kept["weights"], held)
    assert kept["digest"] == weights.digest(held)
    optimizer.close()


def test_states_taken_while_three_workers_push_are_each_of_one_moment(serve: Callable[..., Any]) -> None:
    """θ of a version, and of every worker the mirror after exactly the pushes that are counted as its own."""
    run = serve(world_size=None)
    ended = threading.Event()

    def push(rank: int) -> None:
        generator = torch.Generator().manual_seed(rank)
        puppet = run.puppet(rank).join()
        while not ended.is_set():
            puppet.push_some(generator)
        puppet.worker.close()

    threads = [threading.Thread(target=push, args=(rank,)) for rank in (1, 2, 3)]
    for thread in threads:
        thread.start()
    states = [run.server.state_dict()]
    while len({state["version"] for state in states}) < 30 and len(states) < 3000:
        states.append(run.server.state_dict())
        run.state.wait_beyond(states[-1]["version"], timeout=0.1)
    ended.set()
    for thread in threads:
        thread.join()
    assert len({state["version"] for state in states}) == 30, "the workers did not push meanwhile"
    for state in states:
        assert sum(worker["applied"] for worker in state["workers"].values()) == state["version"]
        for worker in state["workers"].values():
            assert worker["digest"] == weights.digest(worker["weights"])


def test_a_state_of_another_model_closes_what_was_opened() -> None:
    listener = InProcessListener()
    with pytest.raises(ConfigError, match="of a server of this model"):
        dgs.init_server(None, network(0), listener=listener, state={"fingerprint": "0"}, world_size=2)
    with pytest.raises(Exception, match="closed"):
        listener.dial()
    with pytest.raises(ConfigError, match="there is no server"):
        dgs.ModelSnapshot(0, {}, {}).server_state()
