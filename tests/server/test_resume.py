# SPDX-License-Identifier: Apache-2.0
"""A run that is saved and resumed, all in new objects, is bitwise the run that was not stopped."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, state_of, tensors, unconnected
from torch import Tensor, nn
from waiting import until

from dgs import CoupledToLR, GradientSGD, WarmUp
from dgs.errors import ConfigError, DriftError

STEPS = 20
CASES: dict[str, dict[str, Any]] = {
    "dgs": {"momentum": 0.7, "schedule": WarmUp(0.02, steps=12)},
    "gd": {"codec": "bfloat16"},
    "asgd": {},
    "dgc": {"momentum": 0.9, "clip": 5.0, "nesterov": True, "schedule": CoupledToLR(0.05)},
    "dgs, sampled": {"momentum": 0.5, "selection": "sampled"},
    "dgs, in half precision": {"momentum": 0.5, "dtype": torch.bfloat16, "codec": "float16"},
    "asgd, every third": {"exchange_every": 3},
    "dgs, every second": {"momentum": 0.7, "exchange_every": 2, "maximize": True},
    "dgc, overlapping": {"momentum": 0.5, "overlap": True, "workers": 1},  # of more the order would be chance
}


def network(seed: int, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 60), nn.BatchNorm1d(60), nn.Tanh(), nn.Linear(60, 30)).to(dtype)


def through_a_file(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Training:
    """A server and its workers, each with a model and a scheduler of its learning rate."""

    def __init__(self, case: str, saved: dict[str, Any] | None = None) -> None:
        chosen = dict(CASES[case])
        dtype, count = chosen.pop("dtype", torch.float32), chosen.pop("workers", 3)
        worker = {name: chosen.pop(name) for name in ("momentum", "schedule") if name in chosen}
        self.settings = {
            "mode": case.partition(",")[0],
            "density": 0.02,
            "buffers_every": 4,
            "threads": 1,
        } | chosen
        self.fleet = Fleet(network(0, dtype), **self.settings)
        if saved is not None:
            self.fleet.server.load_state_dict(saved["server"])
        self.fleet.__enter__()
        self.models = [network(10 + k if saved is None else 99, dtype) for k in range(count)]
        self.workers: list[GradientSGD] = []
        self.schedulers = []
        for k, model in enumerate(self.models):
            if saved is not None:
                model.load_state_dict(saved["models"][k])
            self.workers.append(
                self.fleet.join(model, lr=0.1, weight_decay=0.01, connect=False, rank=k + 1, **worker)
            )
            scheduler = torch.optim.lr_scheduler.StepLR(self.workers[k], step_size=3, gamma=0.8)
            if saved is not None:
                self.workers[k].load_state_dict(saved["optimizers"][k])
                scheduler.load_state_dict(saved["schedulers"][k])
            self.schedulers.append(scheduler)
        for optimizer in self.workers:
            optimizer.connect()

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last):
            for k, (model, optimizer) in enumerate(zip(self.models, self.workers, strict=True)):
                generator = torch.Generator().manual_seed(100 * step + k)
                dtype = next(model.parameters()).dtype
                x, y = (torch.randn(8, n, generator=generator).to(dtype) for n in (20, 30))
                optimizer.zero_grad()
                (model(x) - y).square().mean().backward()
                optimizer.step()
                self.schedulers[k].step()

    def pause(self) -> dict[str, Any]:
        """Saves everything, the way of a user: states, then close("paused"), then the server's."""
        saved: dict[str, Any] = {"optimizers": [o.state_dict() for o in self.workers]}
        saved["models"] = [model.state_dict() for model in self.models]
        saved["schedulers"] = [scheduler.state_dict() for scheduler in self.schedulers]
        for optimizer in self.workers:
            optimizer.close("paused")
        self.fleet.__exit__()
        assert self.fleet.report is not None
        assert [w.outcome for w in self.fleet.report.workers] == ["paused"] * len(self.workers)
        return saved | {"server": self.fleet.report.state}

    def ended(self) -> dict[str, Any]:
        for worker in self.workers:
            worker.close("left")  # its echo says that the server has taken everything before it
        self.fleet.__exit__()
        return {
            "workers": [state_of(worker) for worker in self.workers],
            "buffers": [dict(model.named_buffers()) for model in self.models],
            "theta": self.fleet.state.theta,
            "version": self.fleet.state.version,
            "together": self.fleet.buffers.current(),
        }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return same_bits(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("case", CASES)
def test_saved_and_resumed_at_half_time_is_bitwise_the_run_that_was_not_stopped(case: str) -> None:
    straight = Training(case)
    straight.steps(0, STEPS // 2)
    for worker in straight.workers:
        worker.state_dict()  # saving settles an exchange that overlaps the computation
    straight.steps(STEPS // 2, STEPS)
    first = Training(case)
    first.steps(0, STEPS // 2)
    saved = through_a_file(first.pause())
    resumed = Training(case, saved)
    assert not any(tap_received_a_model(resumed.fleet, k) for k in range(len(resumed.workers))), (
        "a snapshot was sent"
    )
    resumed.steps(STEPS // 2, STEPS)
    one, two = straight.ended(), resumed.ended()
    assert one["version"] == two["version"] > 0
    for name in one:
        assert same(one[name], two[name]), f"{name} differs"


def tap_received_a_model(fleet: Fleet, k: int) -> bool:
    return len(fleet.taps[k].received) > 0


@pytest.fixture
def paused() -> Callable[..., Any]:
    """Makes a state in which a worker of rank 1 has paused after two steps, with what it saved."""

    def make(mode: str = "dgs") -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
        model = Vectors(tensors(1))
        with Fleet(Vectors(tensors(0)), mode=mode, density=0.05) as fleet:
            worker = fleet.join(model, rank=1, lr=0.1)
            for seed in range(2):
                set_grads(model, tensors(seed))
                worker.step()
            saved = worker.state_dict()
            worker.close("paused")
        assert fleet.report is not None
        return fleet.report.state, {n: p.detach().clone() for n, p in model.named_parameters()}, saved

    return make


@pytest.mark.parametrize("mode", ["dgs", "asgd"])
def test_altered_weights_and_other_ranks_get_a_snapshot(paused: Callable[..., Any], mode: str) -> None:
    state, weights, _ = paused(mode)
    altered = {n: t.clone() for n, t in weights.items()}
    altered["bias"][3] += 1e-3
    for held, rank, resumes in (
        (altered, 1, False), (weights, 2, False), (weights, 1, True), (weights, None, True),
    ):  # fmt: skip
        fleet = Fleet(Vectors(tensors(9)), mode=mode, density=0.05)
        fleet.server.load_state_dict(state)
        with fleet:
            model = Vectors(held)
            worker = fleet.join(model, lr=0.1, rank=rank)
            assert tap_received_a_model(fleet, 0) is not resumes
            assert same_bits(fleet.state.theta, state["theta"]) and worker.version == 2
            assert (worker._replica.session.sequence == 2) is resumes
            assert resumes or torch.equal(torch.cat([p.view(-1) for p in model.parameters()]), state["theta"])
            set_grads(model, tensors(5))
            worker.step()
            assert fleet.state.version == 3


def test_only_the_first_that_comes_takes_the_place_of_one_that_paused(paused: Callable[..., Any]) -> None:
    state, weights, _ = paused()
    fleet = Fleet(Vectors(tensors(9)), density=0.05)
    fleet.server.load_state_dict(state)
    with fleet:
        first, second = (fleet.join(Vectors(weights), lr=0.1) for _ in range(2))
        assert (first.rank, second.rank) == (1, 2)
        assert [tap_received_a_model(fleet, k) for k in range(2)] == [False, True]


def test_a_worker_pauses_and_comes_back_while_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with Fleet(Vectors(tensors(0)), density=0.05, world_size=3) as fleet, caplog.at_level(logging.INFO):
        models = [Vectors(tensors(k)) for k in range(2)]
        workers = [fleet.join(model, lr=0.1, momentum=0.5) for model in models]
        for worker, model in zip(workers, models, strict=True):
            set_grads(model, tensors(3))
            worker.step()
        saved = workers[0].state_dict()
        workers[0].close("paused")
        held = {n: p.detach().clone() for n, p in models[0].named_parameters()}
        workers[1].step()
        again = unconnected(Vectors(held), lr=0.1, momentum=0.5, dial=fleet.dial)
        again.load_state_dict(saved)
        again.connect()
        fleet.workers.append(again)
        assert again.rank == 1 and "goes on after 1 pushes, without a snapshot" in caplog.text
        for p in (q for g in again.param_groups for q in g["params"]):
            p.grad = torch.ones_like(p)
        again.step()
        assert fleet.state.version == 4
        again.close()
        workers[1].close()
    report = fleet.report
    assert report is not None
    assert sorted((w.rank, w.outcome) for w in report.workers) == [(1, "finished"), (2, "finished")]
    assert report.state["workers"] == {}, "whoever has finished is not kept"


def test_a_pause_that_meets_an_error_ends_the_session_all_the_same() -> None:
    """Else its heart would beat on, and the server would wait for it as long as the process lives."""
    with Fleet(Vectors(tensors(0)), density=0.05, overlap=True) as fleet:
        model = Vectors(tensors(1))
        worker = fleet.join(model, lr=0.1)
        set_grads(model, tensors(2))
        model.matrix.data.mul_(2.0)
        worker.step()
        with pytest.raises(DriftError):
            worker.close("paused")
        assert worker._replica is not None and not worker._replica.session.connected
        until(lambda: fleet.server.active() == 0)
    assert fleet.report is not None and [w.outcome for w in fleet.report.workers] == ["paused"]


def test_the_state_is_taken_between_exchanges_while_workers_push() -> None:
    """Of each worker the mirror after exactly the pushes that are counted as applied."""
    with Fleet(Vectors(tensors(0)), mode="gd", density=0.05) as fleet:
        model = Vectors(tensors(1))
        worker = fleet.join(model, lr=0.1)
        states = []
        for seed in range(5):
            set_grads(model, tensors(seed))
            worker.step()
            state = fleet.server.state_dict()
            assert state["version"] == seed + 1 and state["workers"][1]["applied"] == seed + 1
            assert same_bits(state["workers"][1]["weights"], state_of(worker)["weights"])
            assert same_bits(state["theta"], fleet.state.theta)
            states.append(state)
        assert not same_bits(states[0]["theta"], states[-1]["theta"]), "a copy, not the server's own"


def test_a_state_of_another_model_is_refused() -> None:
    fleet = Fleet(Vectors(tensors(0)))
    state = Fleet(Vectors({"w": torch.zeros(40, 50)})).server.state_dict()
    with pytest.raises(ConfigError, match="state: it must be the state_dict of a server of this model"):
        fleet.server.load_state_dict(state)
    state = fleet.server.state_dict()
    state["workers"] = {4: {"applied": 1, "version": 1, "digest": None, "weights": torch.zeros(3)}}
    with pytest.raises(ConfigError, match=r"state: the mirror of worker 4 must have 3850 numbers, got 3"):
        fleet.server.load_state_dict(state)
