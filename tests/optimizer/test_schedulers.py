# SPDX-License-Identifier: Apache-2.0
"""Every scheduler of torch.optim.lr_scheduler drives a worker as it drives torch.optim.SGD."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, set_grads, tensors
from torch.optim import lr_scheduler as torchs
from torch.optim.swa_utils import SWALR

STEPS = 12

Make = Callable[[torch.optim.Optimizer], Any]

MAKERS: dict[str, Make] = {
    "LambdaLR": lambda o: torchs.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: torchs.MultiplicativeLR(o, lambda _: 0.8),
    "StepLR": lambda o: torchs.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: torchs.MultiStepLR(o, [2, 5], 0.1),
    "ConstantLR": lambda o: torchs.ConstantLR(o, 0.25, 4),
    "LinearLR": lambda o: torchs.LinearLR(o, 0.1, 1.0, 6),
    "ExponentialLR": lambda o: torchs.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: torchs.CosineAnnealingLR(o, STEPS),
    "CosineAnnealingWarmRestarts": lambda o: torchs.CosineAnnealingWarmRestarts(o, 4),
    "PolynomialLR": lambda o: torchs.PolynomialLR(o, STEPS, 2.0),
    "CyclicLR": lambda o: torchs.CyclicLR(o, 0.01, 0.2, 3, cycle_momentum=True),
    "OneCycleLR": lambda o: torchs.OneCycleLR(o, 0.3, total_steps=STEPS + 1),
    "ReduceLROnPlateau": lambda o: torchs.ReduceLROnPlateau(o, patience=1),
    "ChainedScheduler": lambda o: torchs.ChainedScheduler(
        [torchs.ConstantLR(o, 0.5, 3), torchs.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "SequentialLR": lambda o: torchs.SequentialLR(
        o, [torchs.LinearLR(o, 0.2, 1.0, 4), torchs.CosineAnnealingLR(o, 6)], milestones=[4]
    ),
    "SWALR": lambda o: SWALR(o, swa_lr=0.02, anneal_epochs=4),
}


def schedulers() -> set[str]:
    """The names of all schedulers that this torch has."""
    return {
        name
        for name, kind in inspect.getmembers(torchs, inspect.isclass)
        if issubclass(kind, torchs.LRScheduler)
        and kind is not torchs.LRScheduler
        and not name.startswith("_")
    }


def test_all_of_them_are_looked_at() -> None:
    assert schedulers() - MAKERS.keys() == set(), "a scheduler has no test"
    assert "CosineAnnealingLR" in schedulers() and "ReduceLROnPlateau" in schedulers()


def course(
    optimizer: torch.optim.Optimizer, model: Vectors, scheduler: Any, steps: range = range(STEPS)
) -> list[list[tuple[float, float]]]:
    """Learning rate and momentum of every group before each step."""
    found = []
    for step in steps:
        found.append([(float(g["lr"]), g["momentum"]) for g in optimizer.param_groups])
        set_grads(model, tensors(step))
        optimizer.step()
        if isinstance(scheduler, torchs.ReduceLROnPlateau):
            scheduler.step(1.0 / min(step + 1, 3))
        else:
            scheduler.step()
    return found


@pytest.mark.parametrize("tensor", [False, True], ids=["lr as a number", "lr as a tensor"])
@pytest.mark.parametrize("mode", ["dgs", "sgd"])
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.filterwarnings("error")
def test_rates_and_momenta_are_those_that_torchs_sgd_is_given(name: str, mode: str, tensor: bool) -> None:
    theirs, ours = Vectors(tensors(1)), Vectors(tensors(1))

    def groups(model: Vectors) -> list[dict[str, Any]]:
        rates = (torch.tensor(0.2), torch.tensor(0.05)) if tensor else (0.2, 0.05)
        parameters = ([model.matrix, model.table], [model.bias])
        return [{"params": p, "lr": lr} for p, lr in zip(parameters, rates, strict=True)]

    other = torch.optim.SGD(groups(theirs), lr=0.1, momentum=0.8)
    expected = course(other, theirs, MAKERS[name](other))
    assert len({str(rates) for rates in expected}) > 1, "the scheduler changes something"
    with Fleet(Vectors(tensors(1)), density=0.05) as fleet:
        alone = {"mode": "sgd"} if mode == "sgd" else {}
        worker = fleet.join(ours, groups(ours), lr=0.1, momentum=0.8, **alone)
        assert course(worker, ours, MAKERS[name](worker)) == expected
        assert worker.version == STEPS


@pytest.mark.parametrize("name", MAKERS)
def test_a_schedule_is_resumed_with_the_worker(name: str) -> None:
    """Saved beside the optimizer's state_dict, as torch's tutorials do it."""
    half = STEPS // 2
    with Fleet(Vectors(tensors(1))) as fleet:
        models = [Vectors(tensors(1)) for _ in range(2)]
        worker, again = (
            fleet.join(model, lr=lr, momentum=0.8) for model, lr in zip(models, (0.1, 0.5), strict=True)
        )
        scheduler, resumed = MAKERS[name](worker), MAKERS[name](again)
        course(worker, models[0], scheduler, range(half))
        again.load_state_dict(worker.state_dict())
        resumed.load_state_dict(scheduler.state_dict())
        rest = [
            course(*parts, range(half, STEPS))
            for parts in ((worker, models[0], scheduler), (again, models[1], resumed))
        ]
        assert rest[0] == rest[1]
