# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters and parameters that are refused, by name, rule and value."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, set_grads, tensors, unconnected
from torch import nn

from dgs import GradientSGD
from dgs.errors import ConfigError, LayoutError


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"lr": -0.1}, "lr must be at least 0 and finite, got -0.1"),
        ({"lr": math.inf}, "lr must be at least 0 and finite, got inf"),
        ({"lr": math.nan}, "lr must be at least 0 and finite, got nan"),
        ({"momentum": 1.0}, "momentum must be in [0, 1), got 1.0"),
        ({"momentum": -0.1}, "momentum must be in [0, 1), got -0.1"),
        ({"weight_decay": -1}, "weight_decay must be at least 0 and finite, got -1"),
        ({"weight_decay": None}, "weight_decay must be a number, or a tensor of one, got None"),
        ({"lr": "0.1"}, "lr must be a number, or a tensor of one, got '0.1'"),
        ({"lr": torch.zeros(2)}, "lr must be a number, or a tensor of one, got tensor([0., 0.])"),
        ({"momentum": True}, "momentum must be a number, or a tensor of one, got True"),
        ({"density": 0}, "density must be in (0, 1], got 0"),
        ({"density": 2}, "density must be in (0, 1], got 2"),
    ],
    ids=str,
)
def test_hyper_parameters_out_of_range(hyper: dict[str, Any], message: str) -> None:
    model = Vectors(tensors(1))
    for settings, params in ((hyper, None), ({}, [{"params": list(model.parameters())} | hyper])):
        with pytest.raises(ConfigError) as raised:
            unconnected(model, params, **settings)
        assert message.rstrip("0.") in str(raised.value)


def test_parameters_that_cannot_be_trained() -> None:
    model = Vectors(tensors(1))
    with pytest.raises(ConfigError, match="model=… is needed"):
        GradientSGD(model.parameters(), connect=False)
    with pytest.raises(LayoutError, match="there are no parameters"):
        unconnected(nn.ReLU())
    with pytest.raises(LayoutError, match=r"shape \(7,\) is not one of model's"):
        unconnected(model, [*model.parameters(), nn.Parameter(torch.zeros(7))])
    with pytest.raises(LayoutError, match="no trainable parameters"):
        unconnected(Vectors(tensors(1)).requires_grad_(False))
    with pytest.raises(LayoutError, match="bias has dtype torch.float64"):
        model.bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        unconnected(model)
    model.bias = nn.Parameter(torch.zeros(3, device="meta"))
    with pytest.raises(LayoutError, match="several devices"):
        unconnected(model)


def test_integer_parameters_are_left_alone() -> None:
    model, served = Vectors(tensors(1)), Vectors(tensors(0))
    for net in (model, served):
        net.register_parameter("steps", nn.Parameter(torch.arange(3), requires_grad=False))
    with Fleet(served) as fleet:
        worker = fleet.join(model)
        set_grads(model, tensors(2))
        worker.step()
        assert torch.equal(model.steps, torch.arange(3))


def test_a_group_cannot_be_added_once_connected() -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model)
        for _ in range(2):
            with pytest.raises(ConfigError, match="connect=False and call connect"):
                worker.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
            assert len(worker.param_groups) == 1
            worker.close()


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"lr": -1.0}, "lr must be at least 0 and finite, got -1.0"),
        ({"lr": math.nan}, "lr must be at least 0 and finite, got nan"),
        ({"momentum": 1.5}, r"momentum must be in \[0, 1\), got 1.5"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0 and finite, got -1.0"),
        ({"density": 2.0}, r"density must be in \(0, 1\], got 2.0"),
        ({"density": -1.0}, r"density must be in \(0, 1\], got -1.0"),
        ({"density": "all"}, r"density must be in \(0, 1\], got 'all'"),
        ({"lr": "fast"}, "lr must be a number, or a tensor of one, got 'fast'"),
        ({"momentum": None}, "momentum must be a number, or a tensor of one, got None"),
        ({"weight_decay": torch.ones(2)}, "weight_decay must be a number, or a tensor of one, got tensor"),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["dgs", "sgd"])
def test_values_set_after_construction_are_checked_by_the_next_step(
    mode: str, hyper: dict[str, float], message: str
) -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model, lr=0.5, mode=mode)
        good = {name: worker.param_groups[0][name] for name in hyper}
        set_grads(model, tensors(2))
        worker.step()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        worker.param_groups[0].update(hyper)
        for _ in range(2):
            with pytest.raises(ConfigError, match=message):
                worker.step()
        assert worker.version == 1
        assert all(torch.equal(p.detach(), before[name]) for name, p in model.named_parameters())
        worker.param_groups[0].update(good)
        worker.step()
        assert worker.version == 2


@pytest.mark.parametrize("density", [3.0, 0.0, math.nan])
def test_a_schedules_density_is_checked(density: float) -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model, schedule=lambda version, _: density if version else 0.5)
        set_grads(model, tensors(2))
        worker.step()
        text = rf"the schedule's density at version 1 must be in \(0, 1\], got {density}"
        with pytest.raises(ConfigError, match=text):
            worker.step()
        assert fleet.state.version == 1


@pytest.mark.parametrize("mode", ["dgs", "sgd"])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__)
def test_a_copy_says_that_there_is_state_dict(way: Callable[[Any], Any], mode: str) -> None:
    optimizer = unconnected(Vectors(tensors(1)), mode=mode)
    with pytest.raises(ConfigError, match=r"cannot be copied or pickled: save state_dict\(\)"):
        way(optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert copy.deepcopy(scheduler.state_dict())["last_epoch"] == 0
    optimizer.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
