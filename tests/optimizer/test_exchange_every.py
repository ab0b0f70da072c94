# SPDX-License-Identifier: Apache-2.0
"""exchange_every = n: of n steps, n - 1 go into the method's state, send nothing and leave the weights alone."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, state_of, tensors, weights_of

from dgs.errors import NonFiniteGradientError, RefusedError

MODES = ["dgs", "gd", "dgc", "asgd"]


def state(worker: object) -> list[torch.Tensor]:
    assert worker._replica is not None  # type: ignore[attr-defined]
    return [flat.clone() for flat in worker._replica.method.buffers().values()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", MODES)
def test_the_steps_between_move_the_state_alone(mode: str) -> None:
    model = Vectors(tensors(1))
    momentum = {"momentum": 0.5} if mode in ("dgs", "dgc") else {}
    with Fleet(Vectors(tensors(0)), mode=mode, exchange_every=3) as fleet:
        worker = fleet.join(model, lr=0.1, **momentum)
        frames, exchanged = len(fleet.taps[0].sent), []
        for step in range(7):
            before, held = weights_of(worker), state(worker)
            set_grads(model, tensors(10 + step))
            worker.step()
            sent, frames = len(fleet.taps[0].sent) > frames, len(fleet.taps[0].sent)
            exchanged.append(sent)
            assert same_bits(before, weights_of(worker)) is not sent
            now = state(worker)
            assert len(held) != len(now) or not all(map(torch.equal, held, now))
        assert exchanged == [False, False, True] * 2 + [False]
        assert worker.version == fleet.state.version == worker.traffic.exchanges == 2


@pytest.mark.parametrize("mode", ["dgs", "gd", "asgd"])
def test_an_exchange_brings_all_that_was_accumulated_each_step_at_its_own_rate(mode: str) -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), mode=mode, density=1.0, exchange_every=4) as fleet:
        worker = fleet.join(model, lr=1.0)
        expected = fleet.state.theta.double()
        for step in range(4):
            worker.param_groups[0]["lr"] = 0.5 ** (step + 1)
            set_grads(model, tensors(10 + step))
            expected -= 0.5 ** (step + 1) * torch.cat([t.view(-1) for t in tensors(10 + step).values()])
            worker.step()
        torch.testing.assert_close(fleet.state.theta.double(), expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(weights_of(worker), fleet.state.theta, rtol=0, atol=1e-6)


@pytest.mark.parametrize("exchanging", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_a_step_that_is_not_finite_does_not_count(mode: str, exchanging: bool) -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), mode=mode, exchange_every=2) as fleet:
        worker = fleet.join(model, lr=0.1)
        if exchanging:
            set_grads(model, tensors(2))
            worker.step()
        before = state_of(worker)
        set_grads(model, tensors(3))
        model.bias.grad[3] = math.nan
        with pytest.raises(NonFiniteGradientError, match="bias"):
            worker.step()
        assert all(same_bits(value, state_of(worker)[name]) for name, value in before.items())
        for step in range(2 - exchanging):
            assert worker.version == 0
            set_grads(model, tensors(4 + step))
            worker.step()
        assert worker.version == 1


def test_a_refused_exchange_is_due_again_at_the_next_step() -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), exchange_every=3) as fleet:
        worker = fleet.join(model, lr=0.1)
        assert worker._replica is not None
        session = worker._replica.session
        for step in range(4):
            set_grads(model, tensors(10 + step))
            if step == 2:
                session.sequence += 1
                with pytest.raises(RefusedError):
                    worker.step()
                session.sequence -= 1
            else:
                worker.step()
        assert worker.version == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_count_and_what_was_accumulated_are_saved(mode: str) -> None:
    def run(*, resumed: bool) -> tuple[torch.Tensor, list[int]]:
        model = Vectors(tensors(1))
        versions = []
        with Fleet(Vectors(tensors(0)), mode=mode, density=0.05, density_down=1.0, exchange_every=3) as fleet:
            worker = fleet.join(model, lr=0.1)
            for step in range(8):
                if resumed and step == 4:
                    saved = copy.deepcopy(worker.state_dict())
                    worker.close()
                    model = Vectors(tensors(2))
                    worker = fleet.join(model, lr=0.7)
                    worker.load_state_dict(saved)
                set_grads(model, tensors(10 + step))
                worker.step()
                versions.append(fleet.state.version)
            return fleet.state.theta, versions

    straight, again = run(resumed=False), run(resumed=True)
    assert straight[1] == again[1] == [0, 0, 1, 1, 1, 2, 2, 2]
    assert same_bits(straight[0], again[0])


def test_it_ends_with_the_run() -> None:
    models = [Vectors(tensors(seed)) for seed in (1, 2)]
    with Fleet(Vectors(tensors(0)), exchange_every=2, max_version=1) as fleet:
        one, two = (fleet.join(model, lr=0.1) for model in models)
        for worker, model in ((one, models[0]), (two, models[1])):
            for step in range(3):
                set_grads(model, tensors(10 + step))
                worker.step()
            assert worker.done and worker.version == 1
        assert fleet.state.version == 1
