# SPDX-License-Identifier: Apache-2.0
"""state_dict and load_state_dict: the method's state bit for bit, whatever the parameters' dtype."""

from __future__ import annotations

import copy

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, state_of, tensors, unconnected

from dgs.errors import ConfigError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", ["dgs", "gd", "dgc", "asgd"])
def test_a_saved_state_comes_back_bit_for_bit(mode: str, dtype: torch.dtype) -> None:
    model, other = (Vectors(tensors(seed, dtype)) for seed in (1, 2))
    with Fleet(Vectors(tensors(0, dtype)), mode=mode) as fleet:
        momentum = {"momentum": 0.5} if mode in ("dgs", "dgc") else {}
        worker = fleet.join(model, lr=0.1, weight_decay=0.01, **momentum)
        for seed in range(3):
            set_grads(model, tensors(seed))
            worker.step()
        worker.param_groups[0]["lr"] = 0.25
        saved = copy.deepcopy(worker.state_dict())
        names = {"dgs": {"velocity"}, "gd": {"residual"}, "dgc": {"velocity", "residual"}, "asgd": set()}
        master = {"master"} if dtype == torch.bfloat16 else set()
        assert all(set(state) == names[mode] | master for state in saved["state"].values())
        assert len(worker.state) == 0, "state_dict leaves nothing behind"

        resumed = fleet.join(other, lr=0.1, **momentum)
        resumed.load_state_dict(saved)
        assert resumed.param_groups[0]["lr"] == 0.25 and resumed.param_groups[0]["weight_decay"] == 0.01
        for name in names[mode]:
            assert same_bits(state_of(worker)[name], state_of(resumed)[name])
        again = resumed.state_dict()
        for number, state in saved["state"].items():
            for name, value in state.items():
                assert value.dtype == torch.float32 and same_bits(value, again["state"][number][name])


def test_the_groups_that_were_loaded_are_those_that_are_used() -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), mode="asgd") as fleet:
        worker = fleet.join(model, lr=0.5)
        worker.load_state_dict(worker.state_dict())
        worker.param_groups[0]["lr"] = 0.0
        set_grads(model, tensors(2))
        worker.step()
        assert torch.equal(fleet.state.theta, torch.cat([t.view(-1) for t in tensors(0).values()]))


def test_state_that_does_not_fit_changes_nothing() -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model, lr=0.5)
        set_grads(model, tensors(2))
        worker.step()
        before = state_of(worker)
        wrong = copy.deepcopy(worker.state_dict())
        wrong["state"][2]["velocity"] = torch.zeros(51)
        wrong["param_groups"][0]["lr"] = 0.25
        with pytest.raises(
            ConfigError, match=r"velocity of parameter 2 must have shape \(50,\), got \(51,\)"
        ):
            worker.load_state_dict(wrong)
        negative = copy.deepcopy(worker.state_dict())
        negative["param_groups"][0]["lr"] = -1.0
        with pytest.raises(ConfigError, match="lr must be at least 0 and finite, got -1.0"):
            worker.load_state_dict(negative)
        assert worker.param_groups[0]["lr"] == 0.5
        assert all(same_bits(value, state_of(worker)[name]) for name, value in before.items())


def test_accumulated_steps_that_do_not_fit_leave_none_behind() -> None:
    worker = unconnected(Vectors(tensors(1)), mode="asgd", exchange_every=3)
    empty = copy.deepcopy(worker.state_dict())
    saved = copy.deepcopy(empty)
    saved["state"] = {0: {"accumulated": torch.zeros(51)}}
    with pytest.raises(ConfigError, match=r"accumulated of parameter 0 must have shape .*, got \(51,\)"):
        worker.load_state_dict(saved)
    assert worker.state_dict() == empty


def test_a_state_of_torchs_sgd_brings_its_hyper_parameters() -> None:
    model = Vectors(tensors(1))
    saved = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5).state_dict()
    optimizer = unconnected(model)
    optimizer.load_state_dict(saved)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["density"]) == (0.25, None)
