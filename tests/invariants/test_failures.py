# SPDX-License-Identifier: Apache-2.0
"""Invariant 4: a step that fails, on whichever side, leaves both sides bitwise as they were."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, state_of
from torch import Tensor

from dgs import GradientSGD
from dgs.errors import DivergedError, DriftError, NonFiniteGradientError, RefusedError

SHAPES = {"matrix": (40, 50), "bias": (50,)}
MODES = ["dgs", "gd", "dgc", "asgd"]


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


class Frozen:
    """Everything that both sides hold, to be compared with what they hold later."""

    def __init__(self, fleet: Fleet, worker: GradientSGD) -> None:
        self._fleet, self._worker = fleet, worker
        self._before = self._now()

    def _now(self) -> dict[str, Tensor]:
        state = self._fleet.state
        mirrors = {f"mirror {i}": m.weights.clone() for i, m in enumerate(state.mirrors)}
        version = torch.tensor([state.version, self._worker.version])
        return state_of(self._worker) | mirrors | {"theta": state.theta, "versions": version}

    def changes(self) -> list[str]:
        now = self._now()
        assert now.keys() == self._before.keys()
        return [name for name, was in self._before.items() if not same_bits(was, now[name])]


def trained(fleet: Fleet, **keywords: Any) -> tuple[Vectors, GradientSGD]:
    """A worker that has taken two steps."""
    model = Vectors(tensors(1))
    worker = fleet.join(model, lr=0.1, **keywords)
    for seed in (2, 3):
        set_grads(model, tensors(seed))
        worker.step()
    return model, worker


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_refused_by_name(mode: str, bad: float) -> None:
    with Fleet(Vectors(tensors(0)), mode=mode, codec="bfloat16") as fleet:
        model, worker = trained(fleet)
        before = Frozen(fleet, worker)
        set_grads(model, tensors(4))
        model.bias.grad[7] = bad
        with pytest.raises(NonFiniteGradientError, match="bias") as raised:
            worker.step()
        assert raised.value.tensor == "bias"
        assert before.changes() == []

        set_grads(model, tensors(4))
        worker.step()
        assert worker.version == 3, "the run goes on after the refusal"


@pytest.mark.parametrize("mode", MODES)
def test_by_option_the_step_is_skipped_with_a_warning(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    with Fleet(Vectors(tensors(0)), mode=mode, on_nonfinite="skip") as fleet:
        model, worker = trained(fleet)
        before = Frozen(fleet, worker)
        set_grads(model, tensors(4))
        model.matrix.grad[3, 3] = math.nan
        worker.step()
        assert before.changes() == []
        assert "matrix" in caplog.text and "skipped" in caplog.text


@pytest.mark.parametrize("mode", ["dgs", "gd", "dgc"])
def test_a_state_that_overflows_is_refused_as_well(mode: str) -> None:
    with Fleet(Vectors(tensors(0)), mode=mode) as fleet:
        model, worker = trained(fleet)
        before = Frozen(fleet, worker)
        set_grads(model, {name: torch.full(shape, 3e38) for name, shape in SHAPES.items()})
        worker.param_groups[0]["lr"] = 2.0
        with pytest.raises(NonFiniteGradientError, match="matrix"):
            worker.step()
        assert before.changes() == []


@pytest.mark.parametrize("mode", ["dgs", "gd", "dgc"])
def test_a_push_that_the_server_refuses_changes_neither_side(mode: str) -> None:
    with Fleet(Vectors(tensors(0)), mode=mode) as fleet:
        model, worker = trained(fleet)
        before = Frozen(fleet, worker)
        set_grads(model, tensors(4))
        assert worker._replica is not None
        worker._replica.session.sequence += 1
        with pytest.raises(RefusedError) as raised:
            worker.step()
        assert raised.value.code == "sequence"
        worker._replica.session.sequence -= 1
        assert before.changes() == []
        worker.step()
        assert worker.version == 3


@pytest.mark.parametrize("mode", ["dgs", "gd", "dgc"])
def test_drift_found_by_the_digest_changes_neither_side(mode: str) -> None:
    with Fleet(Vectors(tensors(0)), mode=mode) as fleet:
        model, worker = trained(fleet)
        with torch.no_grad():
            model.matrix.data[0, 0] += 1.0  # past autograd's count
            model.bias.data[0] += 1.0
        before = Frozen(fleet, worker)
        set_grads(model, tensors(4))
        with pytest.raises(DriftError) as raised:
            worker.step()
        assert raised.value.tensor in SHAPES
        assert before.changes() == []


@pytest.mark.parametrize("mode", MODES)
def test_a_push_that_would_overflow_the_server_is_refused(mode: str) -> None:
    with Fleet(Vectors(tensors(0)), mode=mode, density=1.0) as fleet:
        model, worker = trained(fleet)
        other = fleet.join(Vectors(tensors(1)), lr=0.1)
        worker.param_groups[0]["lr"] = 1.0
        set_grads(model, {"matrix": torch.zeros(40, 50), "bias": torch.full((50,), 2e38)})
        worker.step()
        before = Frozen(fleet, worker)
        with pytest.raises(DivergedError, match="bias") as raised:
            worker.step()
        assert raised.value.code == "diverged"
        assert before.changes() == []
        other.step()
        assert other.version == 4, "the others go on"
