# SPDX-License-Identifier: Apache-2.0
"""Mode sgd is torch.optim.SGD, bit for bit, and needs no server."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from dgs import GradientSGD
from dgs.errors import ConfigError, NonFiniteGradientError

HYPER = [
    {"momentum": 0.0, "weight_decay": 0.0},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    {"momentum": 0.9, "weight_decay": 0.01, "dampening": 0.25},
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def backward(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    net.zero_grad()
    net(torch.randn(12, 8, generator=generator)).square().mean().backward()


@pytest.mark.parametrize("hyper", HYPER, ids=str)
def test_fifty_steps_are_those_of_torch(hyper: dict[str, Any]) -> None:
    ours, theirs = network(), network()
    mine = GradientSGD(ours.parameters(), lr=0.1, model=ours, mode="sgd", **hyper)
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, **hyper)
    for seed in range(50):
        for net, optimizer in ((ours, mine), (theirs, other)):
            backward(net, seed)
            optimizer.step()
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (mine.version, mine.num_workers, mine.worker_index, mine.traffic.bytes_up) == (50, 1, 0, 0)


def test_groups_may_differ_in_everything() -> None:
    def groups(net: nn.Module) -> list[dict[str, Any]]:
        first, second = net[0].parameters(), net[3].parameters()
        return [
            {"params": first, "lr": 0.01, "momentum": 0.5, "dampening": 0.25, "weight_decay": 0.1},
            {"params": second, "momentum": 0.9, "nesterov": True},
            {"params": net[1].parameters(), "maximize": True},
        ]

    ours, theirs = network(), network()
    mine = GradientSGD(groups(ours), lr=0.1, model=ours, mode="sgd")
    other = torch.optim.SGD(groups(theirs), lr=0.1)
    for seed in range(20):
        for net, optimizer in ((ours, mine), (theirs, other)):
            backward(net, seed)
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + seed)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_decoupled_weight_decay_is_adamws() -> None:
    """With no gradient to speak of, SGD and AdamW are nothing but their decay."""
    ours, theirs = network(), network()
    mine = GradientSGD(
        ours.parameters(), lr=0.1, weight_decay=0.3, momentum=0.9, mode="sgd", decoupled_weight_decay=True
    )
    other = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.3)
    for _ in range(5):
        for net, optimizer in ((ours, mine), (theirs, other)):
            for p in net.parameters():
                p.grad = torch.zeros_like(p)
            optimizer.step()
    assert not torch.equal(ours[0].weight, network()[0].weight)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not any(state["momentum_buffer"].any() for state in mine.state.values())


def test_decoupled_weight_decay_stays_out_of_the_momentum() -> None:
    ours, theirs = network(), network()
    mine = GradientSGD(
        ours.parameters(), lr=0.1, weight_decay=0.3, momentum=0.9, mode="sgd", decoupled_weight_decay=True
    )
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for seed in range(10):
        backward(ours, seed)
        backward(theirs, seed)
        mine.step()
        with torch.no_grad():
            for p in theirs.parameters():
                p.mul_(1 - 0.1 * 0.3)
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_saved_state_continues_bit_for_bit() -> None:
    straight, resumed = network(), network()
    one = GradientSGD(straight.parameters(), lr=0.1, momentum=0.9, mode="sgd")
    two = GradientSGD(resumed.parameters(), lr=0.1, momentum=0.9, mode="sgd")
    for seed in range(3):
        backward(straight, seed)
        one.step()
    resumed.load_state_dict(straight.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for net, optimizer in ((straight, one), (resumed, two)):
        backward(net, 9)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_gradients_that_are_not_finite_change_nothing() -> None:
    net = network()
    optimizer = GradientSGD(net.parameters(), lr=0.1, momentum=0.9, model=net, mode="sgd")
    backward(net, 0)
    assert net[3].bias.grad is not None
    net[3].bias.grad[1] = math.nan
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(NonFiniteGradientError, match="3.bias") as raised:
        optimizer.step()
    assert raised.value.tensor == "3.bias"
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert not optimizer.state and optimizer.version == 0


def test_the_skip_policy_leaves_the_step_out(caplog: pytest.LogCaptureFixture) -> None:
    net = network()
    optimizer = GradientSGD(net.parameters(), lr=0.1, mode="sgd", on_nonfinite="skip")
    backward(net, 0)
    assert net[0].weight.grad is not None
    net[0].weight.grad[0, 0] = math.inf
    before = net[0].weight.detach().clone()
    optimizer.step()
    assert torch.equal(before, net[0].weight) and optimizer.version == 0
    assert "parameter 0 of group 0" in caplog.text


def test_max_version_ends_the_run() -> None:
    net = network()
    optimizer = GradientSGD(net.parameters(), lr=0.1, mode="sgd", max_version=2)
    for seed in range(4):
        backward(net, seed)
        optimizer.step()
    assert optimizer.done and optimizer.version == 2 and optimizer.progress == 1.0


def test_the_model_that_is_shown_is_the_only_one() -> None:
    net = network()
    optimizer = GradientSGD(net.parameters(), lr=0.1, mode="sgd", model=net)
    with optimizer.server_model() as shown:
        assert shown is net
    with pytest.raises(ConfigError, match="model"), GradientSGD(net.parameters(), mode="sgd").server_model():
        pass
    optimizer.close()
