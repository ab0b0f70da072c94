# SPDX-License-Identifier: Apache-2.0
"""How a worker leaves: the last push of what it holds, the word it says, and SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fleet import Fleet, Tap, Vectors, set_grads, state_of, tensors, weights_of
from torch import Tensor

from dgs import GradientSGD
from dgs.config import default
from dgs.errors import ConfigError, LinkClosedError
from dgs_ext import wire

MODES = ["dgs", "gd", "dgc", "asgd"]
MOMENTUM = 0.5


def trained(fleet: Fleet, mode: str, steps: int = 4) -> tuple[Vectors, GradientSGD]:
    model = Vectors(tensors(1))
    worker = fleet.join(model, lr=0.1, **({"momentum": MOMENTUM} if mode in ("dgs", "dgc") else {}))
    for step in range(steps):
        set_grads(model, tensors(10 + step))
        worker.step()
    return model, worker


def held(worker: GradientSGD) -> dict[str, Tensor]:
    assert worker._replica is not None
    return {name: flat.clone() for name, flat in worker._replica.method.buffers().items()}


@pytest.mark.parametrize("codec", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
def test_a_flush_brings_the_server_all_that_was_held(mode: str, codec: str) -> None:
    """With exchange_every = 3, asgd holds something too."""
    with Fleet(
        Vectors(tensors(0)), mode=mode, codec=codec, density=0.01, flush=True, exchange_every=3
    ) as fleet:
        _, worker = trained(fleet, mode)
        before, theta = held(worker), fleet.state.theta
        what = before[{"dgs": "velocity", "asgd": "accumulated"}.get(mode, "residual")]
        assert what.count_nonzero() > 1000
        worker.close()
        pushed = theta - fleet.state.theta
        torch.testing.assert_close(pushed, what, rtol=0.01 if codec == "bfloat16" else 0, atol=1e-6)
        left = held(worker)
        if mode == "dgs":
            torch.testing.assert_close(left["velocity"], what - (1 - MOMENTUM) * pushed, rtol=0, atol=1e-6)
        elif mode == "asgd":
            assert not left
        else:
            torch.testing.assert_close(left["residual"], what - pushed, rtol=0, atol=1e-6)
        assert worker.traffic.exchanges == 2 and fleet.state.version == 2
        if mode != "asgd":
            assert torch.equal(weights_of(worker), fleet.state.mirrors[0].weights)
    assert fleet.report is not None and [w.outcome for w in fleet.report.workers] == ["finished"]


def test_the_answer_to_a_flush_is_within_the_budget_of_any_pull() -> None:
    with Fleet(Vectors(tensors(0)), density=0.01, flush=True, dense_below=0) as fleet:
        _, worker = trained(fleet, "dgs")
        worker.close()

    def frames(frames: list[Tensor], kind: wire.Kind) -> list[tuple[int, int]]:
        headers = [(wire.parse_header(f), f.numel()) for f in frames]
        return [(header.count, length) for header, length in headers if header.kind is kind]

    pushes = frames(fleet.taps[0].sent, wire.Kind.PUSH)
    pulls = frames(fleet.taps[0].received, wire.Kind.PULL)
    assert pushes[-1][0] > 3000 > 100 > max(count for count, _ in pushes[:-1])
    assert len(pulls) == 5
    assert pulls[-1][1] < 1.1 * default("budget_down") * max(length for _, length in pushes[:-1])


@pytest.mark.parametrize("outcome", ["finished", "left", "failed"])
@pytest.mark.parametrize("flush", [False, True])
def test_who_flushes(flush: bool, outcome: str) -> None:
    with Fleet(Vectors(tensors(0)), flush=flush, density=0.01) as fleet:
        _, worker = trained(fleet, "dgs")
        worker.close(outcome, "a reason")
        assert fleet.state.version == 4 + (flush and outcome != "failed")
    assert fleet.report is not None
    assert [(w.outcome, w.reason) for w in fleet.report.workers] == [(outcome, "a reason")]


def test_nothing_is_flushed_when_nothing_is_held_or_the_run_is_over() -> None:
    with Fleet(Vectors(tensors(0)), mode="gd", flush=True, density=1.0) as fleet:
        _, worker = trained(fleet, "gd")
        worker.close()
        assert fleet.state.version == 4
    with Fleet(Vectors(tensors(0)), flush=True, density=0.01, max_version=4) as fleet:
        _, worker = trained(fleet, "dgs")
        pushes = worker.traffic.bytes_up
        worker.close()
        assert worker.traffic.bytes_up == pushes and fleet.state.version == 4


class Fragile(Tap):
    """Breaks at the next push once `brittle`."""

    brittle = False

    def send(self, frame: Tensor, timeout: Any) -> None:
        if self.brittle and wire.parse_header(frame).kind is wire.Kind.PUSH:
            self._link.close()
            raise LinkClosedError("broken by the test")
        super().send(frame, timeout)


def test_a_flush_that_does_not_arrive_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class FragileFleet(Fleet):
        def dial(self, _timeout: Any) -> Any:
            self.taps.append(Fragile(self.listener.dial()))
            return self.taps[-1]

    with FragileFleet(Vectors(tensors(0)), flush=True, density=0.01) as fleet:
        _, worker = trained(fleet, "dgs")
        before = state_of(worker)
        fleet.taps[0].brittle = True  # type: ignore[attr-defined]
        worker.close()
        assert len(fleet.taps) == 1 and fleet.state.version == 4
        assert torch.equal(before["velocity"], state_of(worker)["velocity"])
    assert "still held was not acknowledged: broken by the test" in caplog.text


def test_a_worker_that_is_dropped_without_close_flushes_too() -> None:
    with Fleet(Vectors(tensors(0)), flush=True, density=0.01, overlap=True) as fleet:
        _, worker = trained(fleet, "dgs")
        fleet.workers.clear()
        assert worker._farewell() is None
        assert fleet.state.version == 5


def test_at_the_exit_of_a_process_a_flush_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on an interpreter that ends can start none."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with Fleet(Vectors(tensors(0)), flush=True, density=0.01, overlap=True) as fleet:
        _, worker = trained(fleet, "dgs")
        fleet.workers.clear()
        with monkeypatch.context() as ending:
            ending.setattr(threading.Thread, "start", refuse)
            worker._farewell()
        assert fleet.state.version == 5
    assert fleet.report is not None and [w.outcome for w in fleet.report.workers] == ["finished"]


def test_a_lost_link_at_the_exit_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with Fleet(Vectors(tensors(0)), density=0.01, overlap=True) as fleet:
        model, worker = trained(fleet, "dgs", steps=1)
        worker.settle()
        fleet.taps[0].close()
        set_grads(model, tensors(2))
        worker.step()
        fleet.workers.clear()
        with monkeypatch.context() as ending:
            ending.setattr(threading.Thread, "start", refuse)
            worker._farewell()
    assert "the last exchange failed: can't create new thread" in caplog.text


def test_there_is_no_other_outcome() -> None:
    with Fleet(Vectors(tensors(0))) as fleet:
        _, worker = trained(fleet, "dgs", steps=1)
        with pytest.raises(ConfigError, match="outcome must be .*, got 'bored'"):
            worker.close("bored")
        assert worker._replica is not None and worker._replica.session.connected


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def default_handler() -> Iterator[None]:
    """SIGTERM's own meaning before the test, and a check that it is back after it."""
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    yield
    found, _ = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert found is signal.SIG_DFL


@pytest.mark.usefixtures("default_handler")
@pytest.mark.parametrize("flush", [False, True])
def test_sigterm_ends_a_block_in_order(flush: bool) -> None:
    with Fleet(Vectors(tensors(0)), world_size=2, flush=flush, density=0.01) as fleet:
        _, worker = trained(fleet, "dgs")
        with pytest.raises(SystemExit) as ended, worker:
            terminate()
            pytest.fail("the block went on")
        assert ended.value.code == 143
        assert fleet.state.version == 4 + flush
        assert fleet._thread.is_alive(), "it is not counted as finished: the server waits for another"
    assert fleet.report is not None
    assert [(w.outcome, w.reason) for w in fleet.report.workers] == [("left", "SIGTERM")]


class Terminating(Tap):
    """SIGTERM arrives as a push goes out, once `armed`; so many times."""

    armed = 0

    def send(self, frame: Tensor, timeout: Any) -> None:
        super().send(frame, timeout)
        if wire.parse_header(frame).kind is wire.Kind.PUSH:
            times, self.armed = self.armed, 0
            for _ in range(times):
                terminate()


@pytest.mark.usefixtures("default_handler")
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_in_the_middle_of_a_step_it_waits_for_the_exchange_and_a_second_one_does_not(
    mode: str, times: int
) -> None:
    class TerminatingFleet(Fleet):
        def dial(self, _timeout: Any) -> Any:
            self.taps.append(Terminating(self.listener.dial()))
            return self.taps[-1]

    with TerminatingFleet(Vectors(tensors(0)), mode=mode, density=0.01) as fleet:
        model, worker = trained(fleet, mode)
        fleet.taps[0].armed = times  # type: ignore[attr-defined]
        with pytest.raises(SystemExit, match="143"), worker:
            set_grads(model, tensors(3))
            worker.step()
        assert worker.version == 6 - times, "the reply was taken, or left on its way"
        if mode != "asgd" and times == 1:
            assert torch.equal(weights_of(worker), fleet.state.mirrors[0].weights)
    assert fleet.report is not None and [w.outcome for w in fleet.report.workers] == ["left"]


@pytest.mark.usefixtures("default_handler")
def test_a_server_that_is_gone_is_not_awaited() -> None:
    with Fleet(Vectors(tensors(0)), rejoin_timeout=60.0) as fleet:
        model, worker = trained(fleet, "dgs")
        fleet.server.stop()
        fleet._thread.join()
        timer = threading.Timer(0.5, terminate)
        with pytest.raises(SystemExit, match="143"), worker:
            timer.start()
            set_grads(model, tensors(3))
            worker.step()
        timer.join()


@pytest.mark.usefixtures("default_handler")
def test_during_the_goodbye_it_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with Fleet(Vectors(tensors(0))) as fleet:
        _, worker = trained(fleet, "dgs")
        assert worker._replica is not None
        leave = worker._replica.leave

        def leave_and_terminate() -> None:
            terminate()
            leave()

        monkeypatch.setattr(worker._replica, "leave", leave_and_terminate)
        with pytest.raises(SystemExit, match="143"), worker:
            pass
    assert fleet.report is not None and [w.outcome for w in fleet.report.workers] == ["finished"]


@pytest.mark.usefixtures("default_handler")
def test_a_program_that_handles_sigterm_goes_on_doing_so() -> None:
    came = []
    with Fleet(Vectors(tensors(0))) as fleet:
        _, worker = trained(fleet, "dgs")
        signal.signal(signal.SIGTERM, lambda *_: came.append(1))
        try:
            with worker:
                terminate()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert came == [1] and fleet.report is not None
    assert [w.outcome for w in fleet.report.workers] == ["finished"]


@pytest.mark.usefixtures("default_handler")
def test_a_handler_that_was_set_inside_the_block_stays() -> None:
    def other(*_: object) -> None:
        raise AssertionError("nobody sent it")

    with Fleet(Vectors(tensors(0))) as fleet:
        with fleet.join(Vectors(tensors(1))):
            signal.signal(signal.SIGTERM, other)
        assert signal.getsignal(signal.SIGTERM) is other
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def elsewhere(action: Callable[[], None]) -> None:
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


@pytest.mark.usefixtures("default_handler")
def test_another_thread_and_mode_sgd_leave_the_handler_alone() -> None:
    found = []

    def use(worker: GradientSGD) -> None:
        with worker:
            found.append(signal.getsignal(signal.SIGTERM))

    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0))) as fleet:
        elsewhere(lambda: use(fleet.join(Vectors(tensors(1)))))
        use(GradientSGD(model.parameters(), mode="sgd"))
    assert found == [signal.SIG_DFL] * 2


@pytest.mark.usefixtures("default_handler")
def test_a_forked_process_dies_of_sigterm_as_ever_and_ends_no_session() -> None:
    """As a data loader's processes do, which are ended in this way."""
    with Fleet(Vectors(tensors(0)), flush=True, density=0.01) as fleet:
        _, worker = trained(fleet, "dgs")
        with worker:
            child = os.fork()
            if child == 0:
                terminate()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
            frames = len(fleet.taps[0].sent)
            child = os.fork()
            if child == 0:
                worker.close()
                os._exit(len(fleet.taps[0].sent) - frames)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, (
                "it said nothing on the parent's link"
            )
            worker.step()
        assert worker.version == 6, "five steps and the flush"
