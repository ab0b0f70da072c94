# SPDX-License-Identifier: Apache-2.0
"""What is trained: bitwise by the seed, by the production code, at the weights held when a gradient began."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fleet import Fleet, same_bits
from small_problem import batches, loss, make_net, run
from torch import Tensor, nn

from dgs.errors import ConfigError, DGSError
from dgs.simulate import WITHOUT_EFFECT, Always, Exponential, LogNormal, Network, Presence, simulate
from dgs.simulate.node import Randomness

NOISY: dict[str, Any] = {"compute": Exponential(0.1), "network": Network.of(1e7, 1e-3)}


@pytest.mark.parametrize("mode", ["dgs", "asgd", "gd", "dgc"])
def test_the_same_seed_gives_the_same_run_bit_for_bit(mode: str) -> None:
    changes = NOISY | {"mode": mode, "momentum": 0.7 if mode in ("dgs", "dgc") else 0.0}
    first, second, other = run(**changes), run(**changes), run(**changes, seed=1)
    assert first.digest == second.digest
    assert first.steps == second.steps
    assert first.points == second.points
    assert first.staleness == second.staleness
    assert other.digest != first.digest
    assert [s.time for s in other.steps] != [s.time for s in first.steps]


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    state, other = torch.get_rng_state(), random.getstate()
    run(every=8, evaluate=lambda model: {"noise": float(torch.rand(()))})
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == other


def test_how_often_is_evaluated_does_not_change_the_training() -> None:
    seldom, often = run(**NOISY), run(**NOISY, every=1, evaluate=lambda m: {"noise": float(torch.rand(()))})
    assert seldom.digest == often.digest
    assert [p.version for p in often.points] == list(range(1, 25))
    assert len({p.measured["noise"] for p in often.points}) == 24


@pytest.mark.parametrize("mode", ["dgs", "asgd"])
def test_one_worker_trains_as_against_the_real_server(mode: str) -> None:
    momentum = 0.7 if mode == "dgs" else 0.0
    result = run(workers=1, mode=mode, momentum=momentum, buffers_every=4, seed=3)
    own = Randomness(3)
    with own:
        served = make_net()
    with Fleet(served, mode=mode, density=0.05, max_version=24, buffers_every=4, threads=1) as fleet:
        model = make_net()
        worker = fleet.join(model, lr=0.002, momentum=momentum)
        stream = Randomness(3 * 1_000_003 + 1)
        with stream:
            make_net()  # as the simulated worker did
            data = (batch for _ in range(9) for batch in batches(0))
            while not worker.done:
                worker.zero_grad()
                loss(model, next(data)).backward()
                worker.step()
        worker.close()
        theta, buffers = fleet.state.theta, fleet.buffers.current()
    assert same_bits(flat(result.model), theta)
    saved = dict(result.model.named_buffers())
    assert saved.keys() == buffers.keys()
    assert all(torch.equal(saved[name], buffers[name]) for name in buffers)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_mode_sgd_is_a_plain_loop_with_torch() -> None:
    result = run(workers=1, mode="sgd", max_version=12, lr=lambda at: 0.01 * (1 - at))
    with Randomness(0):
        model = make_net()
    with Randomness(1):
        make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.7)
        data = (batch for _ in range(3) for batch in batches(0))
        for step in range(12):
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 12)
            optimizer.zero_grad()
            loss(model, next(data)).backward()
            optimizer.step()
    assert same_bits(flat(result.model), flat(model))
    assert (result.version, result.staleness, result.per_exchange("up")) == (12, {}, 0.0)


class Scalar(nn.Module):
    """One weight, of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))


def test_a_gradient_is_taken_at_the_weights_held_when_it_began() -> None:
    """Two workers, times 2 and 3, each ½w²: the pushes arrive at 2, 3, 4, 6, 6, 8 from 0, 1, 0, 0, 1, 0."""
    result = simulate(
        Scalar,
        lambda model, _: model.w.square() / 2,  # type: ignore[operator, union-attr]
        lambda index: [None],
        workers=2,
        max_version=6,
        lr=0.5,
        mode="asgd",
        compute=lambda index, draw: 2.0 + index,
    )
    theta, held = 1.0, [1.0, 1.0]
    for worker in (0, 1, 0, 0, 1, 0):
        theta -= 0.5 * held[worker]
        held[worker] = theta
    assert [(s.time, s.worker) for s in result.steps[:6]] == [(2, 0), (3, 1), (4, 0), (6, 0), (6, 1), (8, 0)]
    assert [s.loss for s in result.steps[:4]] == [0.5, 0.5, 0.125, 0.03125]
    assert float(result.model.w.detach()) == theta  # type: ignore[operator, union-attr]
    assert result.staleness == {0: 2, 1: 3, 2: 1}


def test_batches_begin_anew_and_must_not_be_empty() -> None:
    seen: list[int] = []

    def few(index: int) -> Iterator[Any]:
        seen.append(index)
        yield from batches(index)

    simulate(make_net, loss, few, workers=2, max_version=18, lr=0.001)
    assert seen.count(0) == seen.count(1) == 2
    with pytest.raises(ConfigError, match="batches\\(0\\) held none"):
        simulate(make_net, loss, lambda index: [], workers=2, max_version=18)


def test_training_that_diverges_is_an_error_and_leaves_no_worker_behind() -> None:
    with pytest.raises(DGSError):
        run(lr=1e30)
    assert run().version == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"max_version": 0}, "max_version must be at least 1, got 0"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"mode": "sgd"}, "mode sgd is one worker without a server, got workers=3"),
        ({"network": Network(up=[1.0])}, "up holds 1 rates for 3 workers"),
        ({"presence": {3: Presence()}}, "presence names worker 3 of 3"),
        ({"nonsense": 1}, "unknown setting 'nonsense'"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(**changes)


def test_a_token_and_an_environment_do_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(**NOISY)
    for name, value in (("DGS_TOKEN", "secret"), ("RANK", "7"), ("WORLD_SIZE", "9"), ("DGS_OVERLAP", "1")):
        monkeypatch.setenv(name, value)
    assert run(**NOISY).digest == plain.digest


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_settings_without_effect_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"simulate: {name} has no effect"):
        run(**{name: 1})


def test_steps_that_are_not_exchanged_send_nothing() -> None:
    result = run(exchange_every=3, compute=LogNormal(0.1))
    assert result.version == 24
    assert all(use.steps == 3 * use.pushes for use in result.workers)


def test_a_flush_is_a_last_push_of_everyone_who_leaves_before_the_end() -> None:
    changes: dict[str, Any] = {
        "compute": Always(1.0),
        "max_version": 100,
        "presence": {i: Presence(leaves=5.5) for i in range(3)},
    }
    assert run(**changes).version == 18
    assert run(**changes, flush=True).version == 21
