# SPDX-License-Identifier: Apache-2.0
"""The density over the run, and the learning rate's part in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgs import Constant, CoupledToLR, Layout, Settings, WarmUp
from dgs.errors import ConfigError
from dgs.hyper import Hypers, defaults
from dgs.methods import METHODS


def test_warm_up_is_that_of_the_dgc_paper() -> None:
    """75 %, 93.75 %, 98.4375 %, 99.6 %, 99.9 % sparsity over the first epochs (§3.3)."""
    schedule = WarmUp(0.001, steps=10)
    by_epoch = [schedule(10 * epoch, 1.0) for epoch in range(7)]
    assert by_epoch == [0.25, 0.0625, 0.015625, 0.00390625, 0.001, 0.001, 0.001]
    assert schedule(9, 1.0) == 0.25 and schedule(19, 1.0) == 0.0625
    assert WarmUp(0.5, steps=1)(0, 1.0) == 0.5
    assert WarmUp(0.01, steps=1)(10**9, 1.0) == 0.01


def test_a_density_coupled_to_the_learning_rate() -> None:
    schedule = CoupledToLR(0.1, floor=0.002)
    assert [schedule(0, ratio) for ratio in (1.0, 0.5, 0.01, 0.0, 20.0)] == [0.1, 0.05, 0.002, 0.002, 1.0]
    assert Constant(0.1)(12345, 0.1) == 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(0), r"density must be in \(0, 1\], got 0"),
        (lambda: WarmUp(2, steps=1), r"density must be in \(0, 1\], got 2"),
        (lambda: WarmUp(0.1, steps=0), "warm-up steps must be at least 1, got 0"),
        (lambda: CoupledToLR(0.1, floor=0), r"floor must be in \(0, 1\], got 0"),
    ],
)
def test_bad_schedules(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


LAYOUT = Layout([("a", (100, 100)), ("b", (50, 100)), ("bias", (100,))])
PARAMETERS = [torch.zeros(s.shape) for s in LAYOUT.segments]


def groups(**second: Any) -> list[dict[str, Any]]:
    base = defaults(Settings()) | {"lr": 0.5, "momentum": 0.75, "weight_decay": 0.25}
    return [base | {"params": [PARAMETERS[1]]} | second, base | {"params": [PARAMETERS[0], PARAMETERS[2]]}]


def hypers_of(given: list[dict[str, Any]], schedule: Any, mode: str = "dgs") -> Hypers:
    return Hypers(LAYOUT, PARAMETERS, given, schedule, METHODS[mode])


def test_every_segment_has_its_groups_hyper_parameters() -> None:
    given = groups(lr=0.125, momentum=0.0, weight_decay=0.0, density=0.5)
    hyper = hypers_of(given, Constant(0.01)).at(given, 0, 3)
    assert hyper.lr.tolist() == [0.5, 0.125, 0.5]
    assert hyper.momentum.tolist() == [0.75, 0.0, 0.75]
    assert hyper.weight_decay.tolist() == [0.25, 0.0, 0.25]
    assert hyper.counts.tolist() == [100, 2500, 100]
    assert hyper.workers == 3


def test_the_schedule_sees_the_version_and_the_learning_rate_over_its_first() -> None:
    seen = []

    def schedule(version: int, lr_ratio: float) -> float:
        seen.append((version, lr_ratio))
        return 0.1

    given = groups()
    hypers = hypers_of(given, schedule)
    given[0]["lr"] = 0.25
    hypers.at(given, 7, 1)
    given[1]["initial_lr"] = 1.0
    hypers.at(given, 8, 1)
    assert seen == [(7, 0.5), (7, 1.0), (8, 0.5), (8, 0.5)]


def test_tensors_are_made_anew_only_when_something_has_changed() -> None:
    given = groups()
    hypers = hypers_of(given, WarmUp(0.01, steps=10))
    first = hypers.at(given, 0, 1)
    assert hypers.at(given, 9, 1) is first
    assert hypers.at(given, 10, 1) is not first
    assert hypers.at(given, 10, 2).workers == 2


def test_the_density_told_to_the_server_is_that_of_the_tensors_that_are_not_sent_whole() -> None:
    given = groups(density=0.5)
    hypers = hypers_of(given, Constant(0.01))
    assert hypers.density(hypers.at(given, 0, 1)) == pytest.approx(2600 / 15000)
    whole = Layout([("bias", (100,))])
    only = [defaults(Settings()) | {"params": [PARAMETERS[2]], "lr": 1.0}]
    hypers = Hypers(whole, [PARAMETERS[2]], only, Constant(0.01), METHODS["dgs"])
    assert hypers.density(hypers.at(only, 0, 1)) == 1.0


def test_a_rate_of_zero_and_warm_restarts_leave_a_density() -> None:
    """A coupled density follows the rate down to its floor, at a rate of 0 too, and up again at a restart."""
    given = groups()
    hypers = hypers_of(given, CoupledToLR(0.1, floor=0.001))
    optimizer = torch.optim.SGD([{"params": g["params"], "lr": g["lr"]} for g in given])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4)
    seen = []
    for step in range(9):
        for mine, theirs in zip(given, optimizer.param_groups, strict=True):
            mine |= {"lr": theirs["lr"], "initial_lr": theirs["initial_lr"]}
        seen.append(int(hypers.at(given, step, 1).counts[0]))
        optimizer.step()
        scheduler.step()
    assert seen == [1000, 854, 500, 147, 1000, 854, 500, 147, 1000]
    given[0]["lr"] = given[1]["lr"] = 0.0
    hyper = hypers.at(given, 9, 1)
    assert hyper.counts.tolist() == [10, 5, 100] and not hyper.lr.any()


def test_a_group_that_began_at_a_rate_of_zero_has_the_whole_density() -> None:
    given = groups(lr=0.0)
    hypers = hypers_of(given, CoupledToLR(0.1))
    assert hypers.at(given, 0, 1).counts.tolist() == [1000, 500, 100]
    given[0]["lr"] = 0.3
    assert hypers.at(given, 1, 1).counts.tolist() == [1000, 500, 100]
