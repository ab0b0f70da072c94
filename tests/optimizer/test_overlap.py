# SPDX-License-Identifier: Apache-2.0
"""overlap: the exchange goes on beside the next batch, and what came is applied only inside the next step."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
from fleet import Fleet, Tap, Vectors, same_bits, set_grads, state_of, tensors, weights_of
from torch import Tensor, nn
from waiting import until

from dgs import GradientSGD
from dgs.errors import DriftError, LinkClosedError, NonFiniteGradientError, ServerLostError
from dgs.exchange import BackgroundFlight
from dgs_ext import wire

MODES = ["dgs", "gd", "dgc", "asgd"]


class Gate(Tap):
    """Lets pushes out and replies in only while `gate` is set; may break before or after the server has a push."""

    def __init__(self, link: Any, fault: list[str]) -> None:
        super().__init__(link)
        self.gate = threading.Event()
        self.gate.set()
        self.fault = fault

    def send(self, frame: Tensor, timeout: Any) -> None:
        if wire.parse_header(frame).kind is wire.Kind.PUSH:
            self._pass("before")
        super().send(frame, timeout)

    def receive(self, timeout: Any) -> Tensor:
        frame = super().receive(timeout)
        if wire.parse_header(frame).kind is wire.Kind.PULL:
            self._pass("after")
        return frame

    def _pass(self, where: str) -> None:
        self.gate.wait(20)
        if where in self.fault:
            self.fault.clear()
            self._link.close()
            raise LinkClosedError("broken by the test")


class GatedFleet(Fleet):
    """`fault` is set to ["before"] or ["after"] for the next push to break."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **({"overlap": True} | settings))
        self.fault: list[str] = []

    def dial(self, _timeout: Any) -> Any:
        self.taps.append(Gate(self.listener.dial(), self.fault))
        return self.taps[-1]

    @property
    def gate(self) -> threading.Event:
        gate = self.taps[-1]
        assert isinstance(gate, Gate)
        return gate.gate


def momentum(mode: str) -> dict[str, float]:
    return {"momentum": 0.5} if mode in ("dgs", "dgc") else {}


def test_what_came_is_applied_by_the_next_step_before_its_push() -> None:
    model = Vectors(tensors(1))
    with GatedFleet(Vectors(tensors(0)), density=0.05) as fleet:
        worker = fleet.join(model, lr=0.1)
        start = weights_of(worker)
        fleet.gate.clear()
        set_grads(model, tensors(2))
        worker.step()
        assert worker.version == 0 and same_bits(weights_of(worker), start), "the reply is held back"
        set_grads(model, tensors(3))
        fleet.gate.set()
        worker.step()
        assert worker.version == 1 and not same_bits(weights_of(worker), start)
        worker.settle()
        assert worker.version == fleet.state.version == 2
        assert same_bits(weights_of(worker), fleet.state.mirrors[0].weights)
        worker.settle()
        assert worker.version == 2, "nothing is under way"


def run(
    mode: str, faults: dict[int, str] | None = None, **settings: Any
) -> tuple[Tensor, dict[str, Tensor], int]:
    """θ and the worker after eight steps whose gradients do not depend on the weights."""
    model = Vectors(tensors(1))
    chosen = {"density": 0.05, "density_down": 1.0, "codec": "bfloat16"} | settings
    with GatedFleet(Vectors(tensors(0)), mode=mode, **chosen) as fleet:
        worker = fleet.join(model, lr=0.1, **momentum(mode))
        for step in range(8):
            if faults and step in faults:
                fleet.fault.append(faults[step])
            set_grads(model, tensors(10 + step))
            worker.step()
            for p in model.parameters():  # the next batch, while the frame may be on its way
                p.grad.fill_(7.0)
            if mode != "asgd" and worker._replica._pending is None:
                assert same_bits(weights_of(worker), fleet.state.mirrors[-1].weights)
        worker.settle()
        if mode != "asgd":
            assert same_bits(weights_of(worker), fleet.state.mirrors[-1].weights)
        assert worker.version == fleet.state.version == 8 // worker.settings.exchange_every
        return fleet.state.theta, state_of(worker), len(fleet.taps)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_the_pushes_are_those_of_a_run_without_it(mode: str, every: int) -> None:
    theta, state, _ = run(mode, exchange_every=every)
    expected = run(mode, exchange_every=every, overlap=False)
    assert same_bits(theta, expected[0])
    for name in {"velocity", "residual"} & set(state):
        assert same_bits(state[name], expected[1][name])


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("mode", MODES)
def test_a_link_that_breaks_meanwhile_is_mended_by_the_next_step(mode: str, fault: str) -> None:
    theta, state, sessions = run(mode, {2: fault, 5: fault})
    expected = run(mode)
    assert (sessions, expected[2]) == (3, 1)
    assert same_bits(theta, expected[0])
    for name in {"velocity", "residual"} & set(state):
        assert same_bits(state[name], expected[1][name])


@pytest.mark.parametrize(("settled", "expected"), [(True, [0, 0, 0, 0]), (False, [0, 1, 1, 1])])
def test_every_gradient_is_one_exchange_staler_and_says_so(settled: bool, expected: list[int]) -> None:
    model = Vectors(tensors(1))
    staleness = []
    with GatedFleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model, lr=0.1)
        for step in range(4):
            set_grads(model, tensors(step))
            worker.step()
            if settled:
                worker.settle()
            staleness.append(worker.traffic.staleness)
        worker.settle()
        staleness.append(worker.traffic.staleness)
    assert (staleness[:4] if settled else staleness[1:]) == expected


def test_the_wait_is_hidden_behind_the_computation() -> None:
    model, held = Vectors(tensors(1)), 0.0
    with GatedFleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model, lr=0.1)
        assert worker._replica is not None
        for step in range(6):
            fleet.gate.clear()
            began = time.monotonic()
            set_grads(model, tensors(step))
            worker.step()
            time.sleep(0.1)  # the next batch
            held += time.monotonic() - began
            fleet.gate.set()
            flight = worker._replica.session._flight
            assert flight is not None and flight.landed(30)
        worker.settle()
        assert worker.version == 6 and worker.traffic.waiting < held / 2


def use_close(worker: GradientSGD) -> None:
    worker.close()


def use_state_dict(worker: GradientSGD) -> None:
    worker.state_dict()


def use_load_state_dict(worker: GradientSGD) -> None:
    worker.load_state_dict({"state": {}, "param_groups": worker.param_groups})


def use_server_model(worker: GradientSGD) -> None:
    with worker.server_model():
        assert worker.version == 1


@pytest.mark.parametrize("use", [use_close, use_state_dict, use_load_state_dict, use_server_model])
def test_what_looks_at_the_worker_waits_for_the_exchange(use: Any) -> None:
    model = Vectors(tensors(1))
    with GatedFleet(Vectors(tensors(0)), density=0.05) as fleet:
        worker = fleet.join(model, lr=0.1, momentum=0.5)
        fleet.gate.clear()
        set_grads(model, tensors(2))
        worker.step()
        threading.Timer(0.2, fleet.gate.set).start()
        use(worker)
        assert worker.version == 1 and worker.traffic.exchanges == 1
        assert same_bits(weights_of(worker), fleet.state.mirrors[0].weights)
    assert fleet.report is not None and [w.outcome for w in fleet.report.workers] == ["finished"]


def test_state_dict_holds_the_state_after_the_exchange() -> None:
    saved = []
    for overlap in (False, True):
        model = Vectors(tensors(1))
        with GatedFleet(Vectors(tensors(0)), overlap=overlap, density=0.05) as fleet:
            worker = fleet.join(model, lr=0.1, momentum=0.5)
            for step in range(3):
                set_grads(model, tensors(step))
                worker.step()
            saved.append(worker.state_dict()["state"])
    for number, parts in saved[0].items():
        assert same_bits(parts["velocity"], saved[1][number]["velocity"])


def test_an_error_is_raised_by_the_next_call_and_the_step_can_be_taken_again() -> None:
    model = Vectors(tensors(1))
    with GatedFleet(Vectors(tensors(0)), rejoin_timeout=0.3) as fleet:
        worker = fleet.join(model, lr=0.1)
        set_grads(model, tensors(2))
        worker.step()
        worker.settle()
        before = state_of(worker)
        fleet.server.stop()
        fleet._thread.join()
        worker.step()
        for use in (worker.step, worker.step, worker.settle):
            with pytest.raises(ServerLostError, match="version 1"):
                use()
        assert all(same_bits(value, state_of(worker)[name]) for name, value in before.items())


def test_drift_that_the_server_finds_is_raised_by_the_next_call() -> None:
    model = Vectors(tensors(1))
    with GatedFleet(Vectors(tensors(0)), compress_all=True) as fleet:
        worker = fleet.join(model, lr=0.1)
        model.matrix.data.add_(1.0)  # past autograd's count; the first digest is of this tensor
        set_grads(model, tensors(2))
        worker.step()
        with pytest.raises(DriftError, match="matrix"):
            worker.settle()
        assert fleet.state.version == 0


def test_a_gradient_that_is_not_finite_is_raised_at_once_and_the_exchange_before_it_counts() -> None:
    model = Vectors(tensors(1))
    with GatedFleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model, lr=0.1)
        set_grads(model, tensors(2))
        worker.step()
        model.bias.grad[0] = float("nan")
        with pytest.raises(NonFiniteGradientError):
            worker.step()
        assert worker.version == fleet.state.version == 1


def test_ctrl_c_while_the_reply_is_awaited_leaves_it_to_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Vectors(tensors(1))
    with GatedFleet(Vectors(tensors(0)), density=0.05) as fleet:
        worker = fleet.join(model, lr=0.1)
        set_grads(model, tensors(2))
        worker.step()

        def interrupted(_flight: BackgroundFlight) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(BackgroundFlight, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.step()
        worker.step()
        worker.settle()
        assert worker.version == fleet.state.version == 2 and len(fleet.taps) == 1
        assert same_bits(weights_of(worker), fleet.state.mirrors[0].weights)


def test_the_run_ends_for_it_too() -> None:
    model = Vectors(tensors(1))
    with GatedFleet(Vectors(tensors(0)), max_version=3) as fleet:
        worker = fleet.join(model, lr=0.1)
        steps = 0
        while not worker.done:
            set_grads(model, tensors(steps))
            worker.step()
            steps += 1
        assert steps == 4, "the fourth hears that the third was the last"
        assert worker.version == fleet.state.version == 3
        worker.step()
        assert worker.version == 3 and worker.traffic.exchanges == 3


@pytest.mark.parametrize("held", [False, True])
def test_a_failed_worker_does_not_wait_for_long(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgs.worker._GOODBYE_TIMEOUT", timedelta(seconds=0.3 if held else 30))
    model = Vectors(tensors(1))
    with GatedFleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model, lr=0.1)
        if held:
            fleet.gate.clear()
        set_grads(model, tensors(2))
        worker.step()
        worker.close("failed", "as the test asked")
        assert worker._replica is not None and not worker._replica.session.connected
        fleet.gate.set()
        until(lambda: fleet.server.active() == 0)
    assert fleet.report is not None
    assert [w.outcome for w in fleet.report.workers] == ["died" if held else "failed"]


def test_batch_norm_statistics_travel_between_exchanges() -> None:
    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))

    model = network(1)
    with GatedFleet(network(0), buffers_every=1) as fleet:
        worker = fleet.join(model, lr=0.1)
        for seed in range(3):
            worker.zero_grad()
            model(torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
            worker.step()
        with worker.server_model() as shown:
            assert torch.equal(shown[1].running_mean, model[1].running_mean)
        assert int(fleet.buffers.current()["1.num_batches_tracked"]) == 3
