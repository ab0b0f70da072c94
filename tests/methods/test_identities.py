# SPDX-License-Identifier: Apache-2.0
"""What the methods must be equal to: each other at a corner of their settings, and momentum SGD on one node."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, state_of, weights_of
from torch import Tensor

from dgs.config import CODECS

SHAPES = {"matrix": (30, 50), "bias": (50,), "deep": (12, 10, 10)}


def random(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def run(mode: str, steps: int = 12, **settings: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """θ, and one worker's weights and state, after some steps on gradients that do not depend on the weights."""
    model = Vectors(random(100))
    hyper = {name: settings.pop(name) for name in ("momentum", "weight_decay") if name in settings}
    with Fleet(Vectors(random(0)), mode=mode, **settings) as fleet:
        worker = fleet.join(model, lr=0.1, **hyper)
        for step in range(steps):
            set_grads(model, random(1 + step))
            worker.step()
        return fleet.state.theta, weights_of(worker), state_of(worker)


@pytest.mark.parametrize("codec", CODECS)
def test_dgs_without_momentum_is_gradient_dropping_bit_for_bit(codec: str) -> None:
    dgs = run("dgs", density=0.05, codec=codec, weight_decay=0.1)
    gd = run("gd", density=0.05, codec=codec, weight_decay=0.1)
    assert same_bits(dgs[0], gd[0]) and same_bits(dgs[1], gd[1])
    assert same_bits(dgs[2]["velocity"], gd[2]["residual"])


SINGLE_NODE = {
    # mode: its settings, and what torch.optim.SGD must be told to do the same
    "dgs": ({"momentum": 0.7}, {"momentum": 0.7}),
    "gd": ({}, {}),
    "asgd": ({}, {}),
    "dgc": ({"momentum": 0.7}, {"momentum": 0.7}),
    "dgc, nesterov": ({"momentum": 0.7, "nesterov": True}, {"momentum": 0.7, "nesterov": True}),
}


@pytest.mark.parametrize("compress_all", [False, True])
@pytest.mark.parametrize("case", SINGLE_NODE)
def test_everything_sent_by_one_worker_is_sgd_on_one_node(case: str, compress_all: bool) -> None:
    settings, torch_settings = SINGLE_NODE[case]
    mode = case.partition(",")[0]
    theta, weights, _ = run(mode, density=1.0, compress_all=compress_all, weight_decay=0.01, **settings)

    model = Vectors(random(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01, **torch_settings)
    for step in range(12):
        set_grads(model, random(1 + step))
        optimizer.step()
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    torch.testing.assert_close(theta, flat, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights, theta, rtol=1e-6, atol=1e-6)


def alone(mode: str, rates: list[float], **hyper: Any) -> Tensor:
    """θ after one worker has sent everything, at another learning rate each step."""
    model = Vectors(random(100))
    with Fleet(Vectors(random(0)), mode=mode, density=1.0) as fleet:
        worker = fleet.join(model, **hyper)
        for step, lr in enumerate(rates):
            worker.param_groups[0]["lr"] = lr
            set_grads(model, random(1 + step))
            worker.step()
        return fleet.state.theta


def on_one_node(rates: list[float], *, inside: bool, **hyper: Any) -> Tensor:
    """torch.optim.SGD; `inside`: the learning rate multiplies the gradient, and the momentum takes it along."""
    model = Vectors(random(0))
    optimizer = torch.optim.SGD(model.parameters(), **hyper)
    for step, lr in enumerate(rates):
        scale = lr if inside else 1.0
        optimizer.param_groups[0]["lr"] = 1.0 if inside else lr
        set_grads(model, {name: scale * g for name, g in random(1 + step).items()})
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


RATES = [0.1, 0.05, 0.2, 0.0, 0.1, 0.01, 0.3, 0.02]


def test_at_a_rate_that_changes_dgs_is_momentum_with_the_rate_inside_and_dgc_is_torchs() -> None:
    """The papers' u <- m·u + lr·g against torch's u <- m·u + g; w <- w - lr·u: the same at a constant rate only."""
    inside, outside = (on_one_node(RATES, inside=i, momentum=0.7) for i in (True, False))
    torch.testing.assert_close(alone("dgs", RATES, momentum=0.7), inside, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone("dgc", RATES, momentum=0.7), outside, rtol=1e-5, atol=1e-6)
    assert float((inside - outside).abs().max()) > 0.1
    for mode in ("gd", "asgd"):
        plain = on_one_node(RATES, inside=False)
        torch.testing.assert_close(alone(mode, RATES), plain, rtol=1e-5, atol=1e-6)


def test_segments_sent_whole_keep_their_momentum_in_dgc() -> None:
    state = run("dgc", density=0.01, momentum=0.5)[2]
    matrix, bias = state["velocity"][:1500], state["velocity"][1500:1550]
    assert bool((matrix == 0).any()), "momentum factor masking has set nothing to zero"
    assert bool((bias != 0).all())
    assert bool((state["residual"][1500:1550] == 0).all()), "nothing is held back of a tensor sent whole"
