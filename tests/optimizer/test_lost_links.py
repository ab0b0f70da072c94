# SPDX-License-Identifier: Apache-2.0
"""A link that breaks in the middle of a step: the push counts once, whichever half of the exchange was lost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fleet import Fleet, Tap, Vectors, same_bits, set_grads, state_of, weights_of
from torch import Tensor

from dgs.errors import LinkClosedError, ServerLostError
from dgs_ext import wire

SHAPES = {"matrix": (40, 50), "bias": (50,)}
MODES = ["dgs", "gd", "dgc", "asgd"]


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


class Breaking(Tap):
    """Breaks once, when `fault` is set: before a push, after it, by damage to the reply, by Ctrl-C."""

    fault = ""

    def send(self, frame: Tensor, timeout: Any) -> None:
        kind = wire.parse_header(frame).kind
        if (self.fault == "before" and kind is wire.Kind.PUSH) or (
            self.fault == "buffers" and kind is wire.Kind.BUFFERS
        ):
            self._broken()
        super().send(frame, timeout)

    def receive(self, timeout: Any) -> Tensor:
        frame = super().receive(timeout)
        if self.fault == "interrupt":
            self.fault = ""
            raise KeyboardInterrupt
        if wire.parse_header(frame).kind is wire.Kind.PULL and self.fault in ("after", "damage"):
            if self.fault == "after":
                self._broken()
            self.fault = ""
            frame[-1] ^= 1
        return frame

    def _broken(self) -> None:
        self.fault = ""
        self._link.close()
        raise LinkClosedError("broken by the test")


class BreakingFleet(Fleet):
    def dial(self, _timeout: Any) -> Any:
        self.taps.append(Breaking(self.listener.dial()))
        return self.taps[-1]

    def breaks(self, fault: str) -> None:
        tap = self.taps[-1]
        assert isinstance(tap, Breaking)
        tap.fault = fault


def steps(mode: str, faults: dict[int, str]) -> tuple[Tensor, Tensor, dict[str, Tensor], int]:
    """θ and one worker after six steps whose gradients do not depend on the weights, and the sessions it took."""
    model = Vectors(tensors(1))
    with BreakingFleet(Vectors(tensors(0)), mode=mode, density=0.05, density_down=1.0) as fleet:
        momentum = {"momentum": 0.5} if mode in ("dgs", "dgc") else {}
        worker = fleet.join(model, lr=0.1, **momentum)
        for step in range(6):
            fleet.breaks(faults.get(step, ""))
            set_grads(model, tensors(10 + step))
            worker.step()
            assert worker.version == fleet.state.version == step + 1
            if mode != "asgd":
                assert same_bits(weights_of(worker), fleet.state.mirrors[-1].weights)
        return fleet.state.theta, weights_of(worker), state_of(worker), len(fleet.taps)


@pytest.mark.parametrize("fault", ["before", "after", "damage"])
@pytest.mark.parametrize("mode", MODES)
def test_the_run_is_the_same_as_without_the_fault(mode: str, fault: str) -> None:
    theta, weights, state, sessions = steps(mode, {2: fault, 4: fault})
    expected = steps(mode, {})
    assert (sessions, expected[3]) == (3, 1)
    assert same_bits(theta, expected[0])
    for name in {"velocity", "residual"} & set(state):
        assert same_bits(state[name], expected[2][name])
    torch.testing.assert_close(weights, theta, rtol=1e-6, atol=1e-6)


def test_a_step_that_was_interrupted_is_settled_by_the_next() -> None:
    """Ctrl-C while the reply is awaited: the push was applied, and the step counts."""
    model = Vectors(tensors(1))
    with BreakingFleet(Vectors(tensors(0)), density=0.05) as fleet:
        worker = fleet.join(model, lr=0.1, momentum=0.5)
        for step in range(6):
            set_grads(model, tensors(10 + step))
            if step == 2:
                fleet.breaks("interrupt")
                with pytest.raises(KeyboardInterrupt):
                    worker.step()
            else:
                worker.step()
            assert fleet.state.version == step + 1
            if step != 2:
                assert same_bits(weights_of(worker), fleet.state.mirrors[-1].weights)
        found = fleet.state.theta, state_of(worker)["velocity"]
    expected = steps("dgs", {})
    assert same_bits(found[0], expected[0]) and same_bits(found[1], expected[2]["velocity"])


def test_buffers_that_do_not_arrive_do_not_fail_the_step(caplog: pytest.LogCaptureFixture) -> None:
    def model(seed: int) -> torch.nn.Module:
        made = Vectors(tensors(seed))
        made.register_buffer("seen", torch.zeros(3))
        return made

    mine = model(1)
    with BreakingFleet(model(0), buffers_every=1) as fleet:
        worker = fleet.join(mine, lr=0.1)
        fleet.breaks("buffers")
        for step in range(2):
            set_grads(mine, tensors(step))
            worker.step()
        assert worker.version == 2 and len(fleet.taps) == 2
        assert "buffers did not reach" in caplog.text


def test_a_server_that_is_gone_is_an_error_and_the_state_is_whole() -> None:
    model = Vectors(tensors(1))
    fleet = BreakingFleet(Vectors(tensors(0)), rejoin_timeout=0.3)
    with fleet:
        worker = fleet.join(model, lr=0.1)
        set_grads(model, tensors(2))
        worker.step()
        before = state_of(worker)
        fleet.server.stop()
        fleet._thread.join()
        with pytest.raises(ServerLostError, match="version 1"):
            worker.step()
        assert all(same_bits(value, state_of(worker)[name]) for name, value in before.items())


def test_the_servers_model_is_shown_over_a_new_session() -> None:
    model = Vectors(tensors(1))
    with BreakingFleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model, lr=0.1)
        fleet.taps[-1]._link.close()
        with worker.server_model() as shown:
            assert torch.equal(shown.matrix.detach(), tensors(0)["matrix"])
        assert len(fleet.taps) == 2
        set_grads(model, tensors(2))
        worker.step()
        assert worker.version == 1


def test_a_pull_that_cannot_be_sent_ends_in_a_fresh_snapshot_and_the_push_counts() -> None:
    """θ goes to where the other worker's copy is further away than float32 reaches: no difference can say it."""
    far = {"matrix": torch.full((1, 2), 3e38)}
    behind, ahead = Vectors(far), Vectors(far)
    with Fleet(Vectors(far), density=1.0) as fleet:
        slow, fast = fleet.join(behind), fleet.join(ahead)
        for _ in range(2):
            set_grads(ahead, far)
            fast.step()
        assert bool((fleet.state.theta == -far["matrix"].view(-1)).all())
        set_grads(behind, {"matrix": torch.full((1, 2), 1e37)})
        slow.step()
        assert fleet.state.version == 3, "applied once"
        assert same_bits(weights_of(slow), fleet.state.theta)
        assert bool((fleet.state.theta < -3.05e38).all())
        slow.step()
        assert fleet.state.version == 4, "and it goes on"
