# SPDX-License-Identifier: Apache-2.0
"""What people do with torch's optimizers: accumulate, clip, scale, hook, compile."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, state_of, tensors, unconnected, weights_of
from torch import Tensor, nn

from dgs.errors import ConfigError

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0).long()


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 2))


def loss_of(net: nn.Module, rows: slice = slice(None)) -> Tensor:
    return nn.functional.cross_entropy(net(X[rows]), Y[rows])


def followed(train: Any, steps: int = 5, **settings: Any) -> tuple[Tensor, Tensor]:
    """θ after `train(net, optimizer)` so often by a worker that sends everything, and torch's SGD's weights."""
    ours, theirs = network(0), network(0)
    with Fleet(network(0), mode="asgd", **settings) as fleet:
        worker = fleet.join(ours, lr=0.25)
        other = torch.optim.SGD(theirs.parameters(), lr=0.25)
        for _ in range(steps):
            train(ours, worker)
            train(theirs, other)
        assert worker.version == steps
        return fleet.state.theta, torch.cat([p.detach().view(-1) for p in theirs.parameters()])


def test_gradients_accumulate_over_several_batches() -> None:
    def train(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        for part in range(4):
            (loss_of(net, slice(8 * part, 8 * part + 8)) / 4).backward()
        optimizer.step()

    torch.testing.assert_close(*followed(train))


def test_gradients_are_clipped_between_backward_and_step() -> None:
    norms = []

    def train(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss_of(net).backward()
        norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), 0.05)))
        optimizer.step()

    torch.testing.assert_close(*followed(train))
    assert min(norms) > 0.05, "the clip does something"


def test_gradients_are_unscaled_and_then_clipped() -> None:
    """torch.amp's recipe; bfloat16 under autocast, on the CPU."""
    scalers: dict[int, Any] = {}

    def train(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        scaler = scalers.setdefault(id(net), torch.amp.GradScaler("cpu", init_scale=1024.0))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(net)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        scaler.step(optimizer)
        scaler.update()

    torch.testing.assert_close(*followed(train))


@pytest.mark.parametrize("settings", [{}, {"exchange_every": 2}, {"overlap": True}], ids=str)
@pytest.mark.parametrize("mode", ["dgs", "dgc", "asgd"])
def test_a_step_that_the_scaler_skips_changes_and_exchanges_nothing(
    mode: str, settings: dict[str, Any]
) -> None:
    net = network(1)
    with Fleet(network(0), mode=mode, density=0.1, **settings) as fleet:
        worker = fleet.join(net, lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)

        def step(factor: float) -> None:
            worker.zero_grad()
            scaler.scale(loss_of(net) * factor).backward()
            scaler.unscale_(worker)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(worker)
            scaler.update()

        step(1.0)
        step(1.0)
        worker.settle()
        before, frames, version = state_of(worker), len(fleet.taps[0].sent), worker.version
        step(math.inf)
        worker.settle()
        assert all(same_bits(value, state_of(worker)[name]) for name, value in before.items())
        assert (len(fleet.taps[0].sent), worker.version) == (frames, version)
        assert scaler.get_scale() == 1.0


def test_zero_grad_as_torchs() -> None:
    net = network(1)
    with Fleet(network(0)) as fleet:
        worker = fleet.join(net)
        for to_none in (True, False):
            loss_of(net).backward()
            worker.zero_grad(set_to_none=to_none)
            grads = [p.grad for p in net.parameters()]
            assert all(g is None for g in grads) if to_none else not any(g.any() for g in grads)
        loss_of(net).backward()
        worker.zero_grad()
        assert all(p.grad is None for p in net.parameters()), "torch's default"


def test_a_closure_with_accumulation_and_its_loss() -> None:
    losses = []

    def train(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(net)
            loss.backward()
            return loss

        losses.append(float(optimizer.step(closure).detach()))

    torch.testing.assert_close(*followed(train))
    assert losses[0::2] == pytest.approx(losses[1::2], rel=1e-4) and losses[-1] < losses[0]


def test_hooks_before_and_after_a_step() -> None:
    net = network(1)
    with Fleet(network(0), mode="asgd") as fleet:
        worker = fleet.join(net, lr=0.1)
        seen: list[tuple[str, int]] = []
        before = worker.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", o.version)))
        worker.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", o.version)))
        loss_of(net).backward()
        worker.step()
        before.remove()
        worker.step()
        assert seen == [("before", 0), ("after", 1), ("after", 2)]


def test_hooks_at_the_state_dict() -> None:
    net = network(1)
    with Fleet(network(0)) as fleet:
        worker = fleet.join(net, lr=0.1)
        seen: list[str] = []
        worker.register_state_dict_post_hook(lambda o, state: seen.extend(sorted(state)))
        worker.register_load_state_dict_pre_hook(lambda o, state: seen.append("load"))
        worker.load_state_dict(worker.state_dict())
        assert {"param_groups", "state", "load"} <= set(seen)


def test_hooks_after_a_gradient_is_accumulated() -> None:
    """Such a hook may change or drop a gradient; the step takes what it left."""

    def clamped(p: Tensor) -> None:
        p.grad.clamp_(-0.001, 0.001)

    def dropped(p: Tensor) -> None:
        p.grad = None

    def hooked(net: nn.Sequential) -> None:
        net[0].weight.register_post_accumulate_grad_hook(clamped)
        net[2].bias.register_post_accumulate_grad_hook(dropped)

    def train(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if not net[0].weight._post_accumulate_grad_hooks:
            hooked(net)
        optimizer.zero_grad()
        loss_of(net).backward()
        optimizer.step()

    theta, expected = followed(train)
    torch.testing.assert_close(theta, expected)
    assert torch.equal(theta[-2:], network(0)[2].bias.detach())


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model_trains_as_the_one_inside(backend: str) -> None:
    found = []
    for compiled in (False, True):
        net = network(1)
        model = torch.compile(net, backend=backend) if compiled else net
        with Fleet(network(0), density=0.1) as fleet:
            worker = fleet.join(model, lr=0.1, momentum=0.5)
            for _ in range(4):
                worker.zero_grad()
                loss_of(model).backward()
                worker.step()
            with worker.server_model() as shown:
                assert shown is model and torch.isfinite(loss_of(shown))
            found.append(fleet.state.theta)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["dgs", "gd", "dgc", "asgd"])
def test_bfloat16_parameters_train_by_their_float32_masters(mode: str) -> None:
    net = network(1).bfloat16()
    with Fleet(network(0).bfloat16(), mode=mode, density=0.1) as fleet:
        worker = fleet.join(net, lr=0.05)
        first = None
        for _ in range(10):
            worker.zero_grad()
            loss = nn.functional.cross_entropy(net(X.bfloat16()).float(), Y)
            loss.backward()
            first = first or float(loss.detach())
            worker.step()
        assert float(loss.detach()) < first
        masters = weights_of(worker)
        held = torch.cat([p.detach().view(-1) for p in net.parameters()])
        assert masters.dtype == torch.float32 and held.dtype == torch.bfloat16
        assert torch.equal(held, masters.bfloat16())
        assert not torch.equal(masters, masters.bfloat16().float()), "more than the parameter could hold"
        if mode != "asgd":
            assert same_bits(masters, fleet.state.mirrors[0].weights)


def test_defaults_and_repr_are_those_of_an_optimizer() -> None:
    model = Vectors(tensors(1))
    optimizer = unconnected(model, lr=0.25, momentum=0.5)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.25, 0.5)
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    assert group == optimizer.defaults
    text = repr(optimizer)
    assert text.startswith("GradientSGD (") and "lr: 0.25" in text and "momentum: 0.5" in text


@pytest.mark.parametrize("option", ["foreach", "fused", "differentiable", "capturable"])
@pytest.mark.parametrize("mode", ["dgs", "sgd"])
def test_options_of_torchs_that_mean_nothing_here_are_refused(option: str, mode: str) -> None:
    model = Vectors(tensors(1))
    with pytest.raises(ConfigError, match=f"unknown setting '{option}'"):
        unconnected(model, mode=mode, **{option: True})
    with pytest.raises(ConfigError, match=f"{option} has no meaning here"):
        unconnected(model, [{"params": list(model.parameters()), option: True}], mode=mode)
    saved = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5).state_dict()
    optimizer = unconnected(model, mode=mode)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.25, "as torch.optim.SGD leaves them, they are taken"
    saved["param_groups"][0][option] = True
    with pytest.raises(ConfigError, match=f"{option} has no meaning here"):
        optimizer.load_state_dict(saved)
