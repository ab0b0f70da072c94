# SPDX-License-Identifier: Apache-2.0
"""Batch-norm statistics: sent seldom and at the goodbye, brought together, and right for evaluation as they are."""

from __future__ import annotations

import copy

import pytest
import torch
from fleet import Fleet
from torch import Tensor, nn

from dgs import GradientSGD
from dgs.server.evaluation import model_snapshot
from dgs_ext import wire

STEPS = 20


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))


def data() -> tuple[Tensor, Tensor]:
    """Inputs far from the mean 0 and variance 1 that a fresh model believes in."""
    generator = torch.Generator().manual_seed(5)
    x = 20.0 + 5.0 * torch.randn(256, 6, generator=generator)
    return x, x[:, :3].argmax(1)


def train(net: nn.Module, worker: GradientSGD, steps: int, first: int = 0) -> None:
    x, y = data()
    net.train()
    for step in range(first, first + steps):
        rows = torch.randint(0, 256, (32,), generator=torch.Generator().manual_seed(100 * worker.rank + step))
        worker.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        worker.step()


def evaluated(net: nn.Module) -> float:
    x, y = data()
    net.eval()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(net(x), y))


def recomputed(net: nn.Module) -> nn.Module:
    """A copy of `net` with the statistics of all data, by a pass over it."""
    again = copy.deepcopy(net)
    for layer in again.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean of all that passes
    again.train()
    with torch.no_grad():
        again(data()[0])
    return again


@pytest.mark.parametrize("exchange_every", [1, 2])
@pytest.mark.parametrize("policy", ["mean", "first", "none"])
def test_the_servers_model_evaluates_right_without_a_pass_over_data(policy: str, exchange_every: int) -> None:
    nets, result = [network(seed) for seed in (1, 2)], network(3)
    with Fleet(network(0), buffers=policy, density=0.3, exchange_every=exchange_every) as fleet:
        workers = [fleet.join(net, lr=0.1) for net in nets]
        for step in range(2 * STEPS):
            for net, worker in zip(nets, workers, strict=True):
                train(net, worker, 1, first=step)
        for worker in workers:
            worker.close()
        model_snapshot(fleet.state, fleet.buffers).load_into(result)
    loss, right = evaluated(result), evaluated(recomputed(result))
    assert right < 1.0
    assert (loss > 2 * right) if policy == "none" else (loss < 1.25 * right), (loss, right)


@pytest.mark.parametrize("policy", ["mean", "first", "none"])
def test_what_the_workers_send_comes_together_by_the_policy(policy: str) -> None:
    served, nets = network(0), [network(seed) for seed in (1, 2)]
    served[0].running_mean.fill_(-7.0)
    with Fleet(served, buffers=policy) as fleet:
        workers = [fleet.join(net, lr=0.01, rank=rank) for rank, net in ((2, nets[0]), (1, nets[1]))]
        for steps, net, worker in zip((3, 5), nets, workers, strict=True):
            train(net, worker, steps)
            worker.close()
        found = fleet.buffers.current()
    of_two, of_one = (net[0].running_mean for net in nets)
    expected = {"mean": (of_one + of_two) / 2, "first": of_one, "none": torch.full((6,), -7.0)}
    torch.testing.assert_close(found["0.running_mean"], expected[policy])
    batches = found["0.num_batches_tracked"]
    assert batches.dtype == torch.int64 and int(batches) == {"mean": 5, "first": 5, "none": 0}[policy]


@pytest.mark.parametrize("policy", ["mean", "none"])
def test_statistics_are_a_few_frames_and_one_at_the_goodbye(policy: str) -> None:
    net = network(1)
    with Fleet(network(0), buffers=policy, buffers_every=8) as fleet:
        worker = fleet.join(net, lr=0.01)
        sent = []
        for step in range(STEPS):
            train(net, worker, 1, first=step)
            kinds = [wire.parse_header(frame).kind for frame in fleet.taps[0].sent]
            sent.append(kinds.count(wire.Kind.BUFFERS))
        worker.close()
        kinds = [wire.parse_header(frame).kind for frame in fleet.taps[0].sent]
    if policy == "none":
        assert wire.Kind.BUFFERS not in kinds
        return
    assert [step + 1 for step in range(STEPS) if sent[step] > (sent[step - 1] if step else 0)] == [
        1,
        2,
        4,
        8,
        16,
    ]
    assert kinds[-2:] == [wire.Kind.BUFFERS, wire.Kind.GOODBYE]
    assert int(fleet.buffers.current()["0.num_batches_tracked"]) == STEPS
