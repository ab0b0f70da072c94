# SPDX-License-Identifier: Apache-2.0
"""Which options each method takes, and why it refuses the others."""

from __future__ import annotations

import math
import threading
import warnings
from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, state_of, tensors, unconnected

from dgs import MODES, init_server
from dgs.errors import ConfigError
from dgs.transport import InProcessListener

GIVEN: dict[str, Any] = {
    "nesterov": True, "dampening": 0.5, "decoupled_weight_decay": True, "maximize": True, "clip": 1.0,
}  # fmt: skip
TAKEN = {
    "dgs": {"maximize"},
    "gd": {"maximize"},
    "asgd": {"maximize", "decoupled_weight_decay"},
    "dgc": {"maximize", "nesterov", "clip"},
    "sgd": {"maximize", "nesterov", "dampening", "decoupled_weight_decay"},
}
REASONS = {
    ("dgs", "nesterov"): "is SAMomentum for q = u only",
    ("gd", "nesterov"): "no velocity to look ahead along",
    ("asgd", "nesterov"): "no velocity to look ahead along",
    ("dgs", "decoupled_weight_decay"): "changes every weight at every step, which a sparse push cannot carry",
    ("gd", "decoupled_weight_decay"): "changes every weight at every step, which a sparse push cannot carry",
    ("dgc", "decoupled_weight_decay"): "changes every weight at every step, which a sparse push cannot carry",
    ("dgs", "dampening"): "scale lr instead",
    ("gd", "dampening"): "scale lr instead",
    ("asgd", "dampening"): "scale lr instead",
    ("dgc", "dampening"): "scale lr instead",
    ("dgs", "clip"): "clip_grad_norm_ before step",
    ("gd", "clip"): "clip_grad_norm_ before step",
    ("asgd", "clip"): "clip_grad_norm_ before step",
    ("sgd", "clip"): "clip_grad_norm_ before step",
}


@pytest.mark.parametrize("option", GIVEN)
@pytest.mark.parametrize("mode", list(MODES))
def test_an_option_is_taken_or_refused_with_the_reason(mode: str, option: str) -> None:
    model = Vectors(tensors(1))
    momentum = {"momentum": 0.5} if option == "nesterov" and mode == "sgd" else {}
    if option in TAKEN[mode]:
        unconnected(model, mode=mode, **{option: GIVEN[option]}, **momentum)
        return
    reason = rf"{option} is not for mode {mode}: .*{REASONS[mode, option]}"
    with pytest.raises(ConfigError, match=reason):
        unconnected(model, mode=mode, **{option: GIVEN[option]})
    if option != "clip":
        with pytest.raises(ConfigError, match=reason):
            unconnected(model, [{"params": model.parameters(), option: GIVEN[option]}], mode=mode)


@pytest.mark.parametrize("mode", list(MODES))
def test_a_momentum_that_a_mode_has_no_use_for_is_a_warning(mode: str) -> None:
    """A script that lets its user choose the mode has one momentum for all of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unconnected(Vectors(tensors(1)), mode=mode, momentum=0.9)
    said = [(str(w.message), w.filename) for w in caught]
    expected = f"momentum has no part in mode {mode} and is ignored"
    assert said == ([(expected, unconnected.__code__.co_filename)] if mode in ("gd", "asgd") else [])


@pytest.mark.parametrize(
    "setting", [{"exchange_every": 4}, {"overlap": True}, {"flush": True}, {"density_down": 0.1}], ids=str
)
def test_one_process_has_no_exchanges_to_set(setting: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match=f"{next(iter(setting))} has no part in mode sgd and is ignored"):
        unconnected(Vectors(tensors(1)), mode="sgd", **setting)


IDLE = [
    ({"mode": "asgd", "density_down": 0.1}, "density_down has no part in mode asgd and is ignored"),
    ({"mode": "asgd", "codec_down": "int8"}, "codec_down has no part in mode asgd and is ignored"),
    ({"mode": "asgd", "budget_down": 8.0}, "budget_down has no part in mode asgd and is ignored"),
    ({"density_down": 0.1, "budget_down": 8.0}, "budget_down has no part beside density_down and is ignored"),
    ({"density_down": 0.1, "codec_down": "int8"}, None),
    ({"budget_down": 8.0, "codec_down": "int8"}, None),
    ({"mode": "asgd"}, None),
]


@pytest.mark.parametrize(("settings", "expected"), IDLE, ids=str)
@pytest.mark.parametrize("end", ["worker", "server"])
def test_a_setting_of_pulls_that_has_no_part_is_a_warning_at_both_ends(
    end: str, settings: dict[str, Any], expected: str | None
) -> None:
    """Of the caller's line: a script gives both ends the same settings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if end == "worker":
            unconnected(Vectors(tensors(1)), **settings)
        else:
            stop = threading.Event()
            stop.set()
            init_server(None, Vectors(tensors(1)), listener=InProcessListener(), stop=stop, **settings)
    said = [(str(w.message), w.filename) for w in caught]
    file = unconnected.__code__.co_filename if end == "worker" else __file__
    assert said == ([] if expected is None else [(expected, file)])


@pytest.mark.parametrize(
    ("mode", "name", "value", "message"),
    [
        ("dgs", "nesterov", True, "nesterov is not for mode dgs"),
        ("dgc", "dampening", 0.5, "dampening is not for mode dgc"),
        ("sgd", "dampening", math.inf, "dampening must be finite, got inf"),
        ("sgd", "nesterov", True, "nesterov needs a momentum and no dampening, got momentum 0.0"),
    ],
)
def test_an_option_set_later_is_checked_by_the_next_step(
    mode: str, name: str, value: Any, message: str
) -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), mode="dgs" if mode == "sgd" else mode) as fleet:
        worker = unconnected(model, mode="sgd") if mode == "sgd" else fleet.join(model)
        set_grads(model, tensors(2))
        worker.step()
        worker.param_groups[0][name] = value
        with pytest.raises(ConfigError, match=message):
            worker.step()


def test_dgc_has_one_nesterov_for_all_groups() -> None:
    model = Vectors(tensors(1))
    groups = [{"params": [model.matrix]}, {"params": [model.table, model.bias], "nesterov": True}]
    with Fleet(Vectors(tensors(0)), mode="dgc") as fleet:
        worker = fleet.join(model, groups)
        set_grads(model, tensors(2))
        with pytest.raises(ConfigError, match="nesterov must be the same in all groups in mode dgc"):
            worker.step()
        worker.param_groups[0]["nesterov"] = True
        worker.step()
        assert fleet.state.version == 1


@pytest.mark.parametrize("mode", ["dgs", "gd", "asgd", "dgc"])
def test_maximizing_is_minimizing_the_negative_bit_for_bit(mode: str) -> None:
    hyper: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.01}
    hyper |= {"momentum": 0.5} if mode in ("dgs", "dgc") else {}
    ends = []
    for sign, maximize in ((1.0, True), (-1.0, False)):
        model = Vectors(tensors(1))
        with Fleet(Vectors(tensors(0)), mode=mode, density=0.05) as fleet:
            worker = fleet.join(model, maximize=maximize, **hyper)
            for seed in range(5):
                set_grads(model, {name: sign * t for name, t in tensors(2 + seed).items()})
                worker.step()
            ends.append((fleet.state.theta, state_of(worker)["weights"]))
    assert all(same_bits(a, b) for a, b in zip(*ends, strict=True))
    assert not torch.equal(ends[0][0], torch.cat([t.view(-1) for t in tensors(0).values()]))


def test_decoupled_weight_decay_of_asgd_is_the_coupled_one() -> None:
    ends = []
    for decoupled in (False, True):
        model = Vectors(tensors(1))
        with Fleet(Vectors(tensors(0)), mode="asgd", decoupled_weight_decay=decoupled) as fleet:
            worker = fleet.join(model, lr=0.1, weight_decay=0.1)
            for seed in range(3):
                set_grads(model, tensors(2 + seed))
                worker.step()
            ends.append(fleet.state.theta)
    assert same_bits(*ends)
