# SPDX-License-Identifier: Apache-2.0
"""A user who swaps torch.optim.SGD for GradientSGD(mode="sgd") gets the same training, bit for bit."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from dgs import GradientSGD

STEPS = 50
HYPER = [
    {"momentum": momentum, "dampening": dampening, "weight_decay": decay, "nesterov": nesterov}
    for momentum, dampening, decay, nesterov in itertools.product(
        (0.0, 0.9), (0.0, 0.25), (0.0, 0.01), (False, True)
    )
    if not nesterov or (momentum and not dampening)
]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 5),
    )  # fmt: skip


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        y = torch.randint(0, 5, (8,), generator=generator)
        yield torch.randn(8, 1, 8, 8, generator=generator) + y.view(-1, 1, 1, 1) / 4, y


def train(net: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any = None) -> list[float]:
    losses = []
    for x, y in batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(float(loss.detach()))
    return losses


def same(a: nn.Module, b: nn.Module) -> bool:
    states = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in states)


@pytest.mark.parametrize(
    "hyper", HYPER, ids=lambda h: ",".join(f"{k}={v}" for k, v in h.items() if v) or "plain"
)
def test_fifty_steps_of_a_convnet(hyper: dict[str, Any]) -> None:
    ours, theirs = network(), network()
    mine = GradientSGD(ours.parameters(), lr=0.05, model=ours, mode="sgd", **hyper)
    losses = train(ours, mine)
    assert losses == train(theirs, torch.optim.SGD(theirs.parameters(), lr=0.05, **hyper))
    assert same(ours, theirs) and not same(ours, network())


def test_groups_a_schedule_and_the_state_in_the_middle() -> None:
    def groups(net: nn.Sequential) -> list[dict[str, Any]]:
        return [
            {"params": net[0].parameters(), "lr": 0.01, "momentum": 0.5, "dampening": 0.1},
            {"params": [*net[1].parameters(), *net[3].parameters()], "weight_decay": 0.0, "nesterov": True},
            {"params": net[6].parameters(), "maximize": False},
        ]

    ours, theirs = network(), network()
    mine = GradientSGD(groups(ours), lr=0.05, momentum=0.9, weight_decay=0.01, mode="sgd")
    other = torch.optim.SGD(groups(theirs), lr=0.05, momentum=0.9, weight_decay=0.01)
    for net, optimizer in ((ours, mine), (theirs, other)):
        train(net, optimizer, OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS + 1))
    assert same(ours, theirs)
    for number, state in other.state_dict()["state"].items():
        assert torch.equal(state["momentum_buffer"], mine.state_dict()["state"][number]["momentum_buffer"])


@pytest.mark.parametrize("to_torch", [False, True])
def test_a_state_saved_by_one_is_loaded_by_the_other(to_torch: bool) -> None:
    def make(net: nn.Module, torchs: bool) -> torch.optim.Optimizer:
        if torchs:
            return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        return GradientSGD(net.parameters(), lr=0.05, momentum=0.9, model=net, mode="sgd")

    straight, changed = network(), network()
    one, two = make(straight, not to_torch), make(changed, not to_torch)
    train(straight, one)
    train(changed, two)
    other = make(changed, to_torch)
    other.load_state_dict(copy.deepcopy(two.state_dict()))
    train(straight, one)
    train(changed, other)
    assert same(straight, changed)


def test_the_count_of_steps_is_saved() -> None:
    net = network()
    mine = GradientSGD(net.parameters(), mode="sgd", max_version=2 * STEPS)
    train(net, mine)
    again = GradientSGD(net.parameters(), mode="sgd", max_version=2 * STEPS)
    again.load_state_dict(mine.state_dict())
    assert (again.version, again.progress) == (STEPS, 0.5)
