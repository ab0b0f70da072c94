# SPDX-License-Identifier: Apache-2.0
"""Groups that differ, frozen parameters, and gradients that come only now and then, against torch.optim.SGD."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, state_of
from torch import Tensor, nn

SHAPES = {"one": (40, 50), "two": (30, 40), "three": (60,)}
MOMENTUM = ["dgs", "dgc"]


def random(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def groups(model: nn.Module, mode: str) -> list[dict[str, Any]]:
    """Another learning rate, weight decay and, where the mode has one, momentum for each parameter."""
    momenta = (0.9, 0.5, 0.0) if mode in MOMENTUM else (0.0, 0.0, 0.0)
    rows = zip(model.parameters(), (0.1, 0.02, 0.3), momenta, (0.0, 0.1, 0.01), strict=True)
    return [{"params": [p], "lr": lr, "momentum": m, "weight_decay": d} for p, lr, m, d in rows]


def same_as_torch(mode: str, absent: dict[int, set[str]], **settings: Any) -> None:
    """One worker that sends everything and torch.optim.SGD, step by step; `absent`: what has no gradient when."""
    ours, theirs = Vectors(random(100)), Vectors(random(0))
    other = torch.optim.SGD(groups(theirs, mode))
    with Fleet(Vectors(random(0)), mode=mode, density=1.0, **settings) as fleet:
        worker = fleet.join(ours, groups(ours, mode))
        for step in range(12):
            given = {n: g for n, g in random(1 + step).items() if n not in absent.get(step, set())}
            for model, optimizer in ((ours, worker), (theirs, other)):
                set_grads(model, given)
                optimizer.step()
            for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6, msg=lambda m, s=step: f"step {s}: {m}")


@pytest.mark.parametrize("mode", ["dgs", "gd", "asgd", "dgc"])
def test_every_group_has_its_own_hyper_parameters(mode: str) -> None:
    same_as_torch(mode, {})


@pytest.mark.parametrize("compress_all", [False, True])
@pytest.mark.parametrize("mode", ["dgs", "gd", "asgd", "dgc"])
def test_a_parameter_without_gradient_is_skipped_as_torch_skips_it(mode: str, compress_all: bool) -> None:
    """Its velocity neither decays nor moves it, and goes on from where it was."""
    absent = {2: {"one"}, 3: {"one", "three"}, 4: {"one", "two", "three"}, 7: {"two"}, 9: {"three"}}
    same_as_torch(mode, absent, compress_all=compress_all)


@pytest.mark.parametrize("mode", ["dgs", "gd", "dgc"])
def test_what_is_held_of_a_parameter_waits_for_its_next_gradient(mode: str) -> None:
    model = Vectors(random(100))
    momentum = {"momentum": 0.5} if mode in MOMENTUM else {}
    with Fleet(Vectors(random(0)), mode=mode, density=0.05) as fleet:
        worker = fleet.join(model, lr=0.1, **momentum)
        set_grads(model, random(1))
        worker.step()
        before, theta = state_of(worker), fleet.state.theta
        set_grads(model, {name: g for name, g in random(2).items() if name != "one"})
        worker.step()
        after = state_of(worker)
        for name in ("velocity", "residual"):
            if name in before:
                assert same_bits(before[name][:2000], after[name][:2000])
        assert torch.equal(theta[:2000], fleet.state.theta[:2000])
        assert not torch.equal(theta[2000:], fleet.state.theta[2000:])


def test_every_group_has_its_own_density() -> None:
    model = Vectors(random(100))
    rows = [
        {"params": [model.one], "density": 0.1},
        {"params": [model.two], "density": 0.5},
        {"params": [model.three]},
    ]
    with Fleet(Vectors(random(0)), mode="gd", density=0.01) as fleet:
        worker = fleet.join(model, rows, lr=0.1)
        for k in (200, 400):
            set_grads(model, random(1))
            worker.step()
            q = fleet.taps[0].last_push(fleet.state.layout.numel, fleet.state.layout.fingerprint)
            assert [int(part.count_nonzero()) for part in q.split([2000, 1200, 60])] == [k, 600, 60]
            worker.param_groups[0]["density"] = 0.2


@pytest.mark.parametrize("mode", ["dgs", "gd", "asgd", "dgc"])
def test_a_frozen_layer_stays_where_the_server_has_it(mode: str) -> None:
    ours, served = Vectors(random(100)), Vectors(random(0))
    for model in (ours, served):
        model.two.requires_grad_(False)
    momentum = {"momentum": 0.5} if mode in MOMENTUM else {}
    with Fleet(served, mode=mode, density=0.05) as fleet:
        worker = fleet.join(ours, lr=0.1, weight_decay=0.1, **momentum)
        for step in range(4):
            set_grads(ours, {name: g for name, g in random(1 + step).items() if name != "two"})
            worker.step()
        assert [s.name for s in fleet.state.layout.segments] == ["one", "three"]
        assert torch.equal(ours.two, random(0)["two"]) and not torch.equal(ours.one, random(0)["one"])


@pytest.mark.parametrize("mode", ["dgs", "gd", "asgd", "dgc"])
def test_a_learning_rate_of_zero_sends_what_is_held_and_adds_nothing(mode: str) -> None:
    model = Vectors(random(100))
    with Fleet(Vectors(random(0)), mode=mode, density=0.05) as fleet:
        worker = fleet.join(model, lr=0.1)
        set_grads(model, random(1))
        worker.step()
        worker.param_groups[0]["lr"] = 0.0
        held = sum(float(v.abs().sum()) for n, v in state_of(worker).items() if n == "residual")
        set_grads(model, {name: 1e6 * g for name, g in random(2).items()})
        worker.step()
        left = sum(float(v.abs().sum()) for n, v in state_of(worker).items() if n == "residual")
        if (
            mode == "gd"
        ):  # dgc's velocity has taken the gradient, and dgs without momentum holds it as gd does
            assert 0 < left < held
        total = fleet.state.theta.abs().max()
        assert float(total) < 10, "a gradient at rate 0 has no part in the parameters"
