# SPDX-License-Identifier: Apache-2.0
"""Groups that are added before the first exchange, and edited after it."""

from __future__ import annotations

import copy

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, tensors, unconnected
from torch import nn

from dgs import GradientSGD
from dgs.errors import ConfigError, LayoutError


@pytest.mark.parametrize("mode", ["dgs", "gd", "dgc", "asgd"])
def test_groups_may_be_added_until_it_is_connected(mode: str) -> None:
    """It is then the optimizer that was given all of them at once."""
    found = []
    for later in (False, True):
        model = Vectors(tensors(1))
        groups = [
            {"params": [model.matrix], "lr": 0.5},
            {"params": [model.table], "weight_decay": 0.25, "density": 0.5},
            {"params": [model.bias]},
        ]
        with Fleet(Vectors(tensors(0)), mode=mode, density=0.01) as fleet:
            worker = fleet.join(model, groups[:1] if later else groups, lr=0.125, connect=False)
            for group in groups[1:] if later else ():
                worker.add_param_group(group)
            worker.connect()
            for seed in range(3):
                set_grads(model, tensors(seed))
                worker.step()
            found.append((fleet.state.theta, [g["lr"] for g in worker.param_groups]))
    assert same_bits(found[0][0], found[1][0]) and found[0][1] == found[1][1] == [0.5, 0.125, 0.125]


def test_a_group_that_cannot_be_added_leaves_the_optimizer_as_it_was() -> None:
    model = Vectors(tensors(1))
    optimizer = unconnected(model, [model.matrix])
    replica = optimizer._replica
    for group, error, message in (
        ({"params": [nn.Parameter(torch.zeros(7))]}, LayoutError, "not one of model's"),
        ({"params": [model.bias], "lr": -1.0}, ConfigError, "lr must be at least 0"),
        ({"params": [model.matrix]}, ValueError, "more than one parameter group"),
    ):
        with pytest.raises(error, match=message):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1 and optimizer._replica is replica


def test_a_state_loaded_before_a_group_is_added_is_kept() -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), mode="dgc", density=0.01) as fleet:
        worker = fleet.join(model, lr=0.1, momentum=0.5)
        set_grads(model, tensors(2))
        worker.step()
        saved = copy.deepcopy(worker.state_dict())
    part = {"state": {0: saved["state"][0]}, "param_groups": [saved["param_groups"][0] | {"params": [0]}]}
    optimizer = unconnected(model, [model.matrix], mode="dgc")
    optimizer.load_state_dict(part)
    optimizer.add_param_group({"params": [model.table, model.bias]})
    now = optimizer.state_dict()["state"]
    for name in ("velocity", "residual"):
        assert same_bits(now[0][name], saved["state"][0][name]) and now[0][name].any()
        assert not now[1][name].any()


def test_mode_sgd_takes_groups_at_any_time() -> None:
    model = Vectors(tensors(1))
    optimizer = GradientSGD([model.matrix], mode="sgd")
    set_grads(model, tensors(2))
    optimizer.step()
    optimizer.add_param_group({"params": [model.bias]})
    before = model.bias.detach().clone()
    optimizer.step()
    assert not torch.equal(before, model.bias)


@pytest.mark.parametrize("mode", ["dgs", "sgd"])
def test_groups_are_edited_between_steps(mode: str) -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(1)), mode="dgs", density=1.0) as fleet:
        worker = fleet.join(model, lr=torch.tensor(0.5), mode=mode)
        for lr in (0.25, torch.tensor(0.125), 0.0):
            worker.param_groups[0]["lr"] = lr
            before = model.matrix.detach().clone()
            set_grads(model, tensors(2))
            worker.step()
            moved = before - model.matrix.detach()
            torch.testing.assert_close(moved, float(lr) * tensors(2)["matrix"], rtol=0, atol=1e-6)
