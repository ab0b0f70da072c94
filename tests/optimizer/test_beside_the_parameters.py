# SPDX-License-Identifier: Apache-2.0
"""What travels beside the trained parameters: frozen ones, and buffers when they are looked at or left behind."""

from __future__ import annotations

import torch
from fleet import Fleet
from torch import nn
from waiting import until

from dgs import GradientSGD


def network(seed: int, *, frozen: bool) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    net[0].requires_grad_(not frozen)
    return net


def step(net: nn.Module, worker: GradientSGD, seed: int) -> None:
    worker.zero_grad()
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed)) + 3
    net(x).square().mean().backward()
    worker.step()


def test_frozen_parameters_are_the_servers_and_stay_so() -> None:
    served, mine = network(0, frozen=True), network(1, frozen=True)
    with Fleet(served) as fleet:
        worker = fleet.join(mine, lr=0.1)
        assert torch.equal(mine[0].weight, served[0].weight)
        for seed in range(3):
            step(mine, worker, seed)
        assert torch.equal(mine[0].weight, served[0].weight)
        with worker.server_model() as shown:
            assert torch.equal(shown[0].weight, served[0].weight)


def test_half_precision_workers_take_frozen_parameters_too() -> None:
    served, mine = network(0, frozen=True), network(1, frozen=True).bfloat16()
    with Fleet(served.bfloat16()) as fleet:
        fleet.join(mine)
        assert torch.equal(mine[0].weight, served[0].weight)


def test_the_servers_model_has_the_statistics_of_now() -> None:
    mine = network(1, frozen=False)
    with Fleet(network(0, frozen=False)) as fleet:
        worker = fleet.join(mine, lr=0.1)
        for seed in range(5):
            step(mine, worker, seed)
        mean = mine[1].running_mean.clone()
        with worker.server_model() as shown:
            assert torch.equal(shown[1].running_mean, mean)


def test_statistics_are_sent_soon_at_first() -> None:
    mine = network(1, frozen=False)
    with Fleet(network(0, frozen=False), buffers_every=100) as fleet:
        worker = fleet.join(mine, lr=0.1)
        sent = []
        for seed in range(9):
            before = worker.traffic.other_bytes
            step(mine, worker, seed)
            sent.append(worker.traffic.other_bytes > before)
    assert [i + 1 for i, s in enumerate(sent) if s] == [1, 2, 4, 8]


def test_a_worker_that_is_dropped_without_close_leaves_its_statistics() -> None:
    mine = network(1, frozen=False)
    with Fleet(network(0, frozen=False)) as fleet:
        worker = fleet.join(mine, lr=0.1)
        for seed in range(3):
            step(mine, worker, seed)
        fleet.workers.clear()
        assert worker._farewell() is None  # what the collector or the interpreter's exit calls
        assert worker._replica is not None and not worker._replica.session.connected
    assert torch.equal(fleet.buffers.current()["1.running_mean"], mine[1].running_mean)


def test_the_statistics_of_a_worker_that_dies_leave_the_mean() -> None:
    gone, mine = network(1, frozen=False), network(2, frozen=False)
    with Fleet(network(0, frozen=False)) as fleet:
        first, second = fleet.join(gone, lr=0.1), fleet.join(mine, lr=0.1)
        gone[1].running_mean.fill_(1000.0)
        step(gone, first, 0)
        step(mine, second, 1)
        until(lambda: float(fleet.buffers.current()["1.running_mean"].max()) > 100)
        fleet.taps[0].close()  # without a goodbye
        until(lambda: torch.equal(fleet.buffers.current()["1.running_mean"], mine[1].running_mean))
