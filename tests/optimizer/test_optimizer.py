# SPDX-License-Identifier: Apache-2.0
"""GradientSGD is an optimizer like torch's: groups, closures, schedulers; and when it may be used."""

from __future__ import annotations

import gc
import inspect
import math
from typing import Any

import pytest
import torch
from fleet import SHAPES, Fleet, Vectors, same_bits, set_grads, state_of, tensors, unconnected, weights_of
from torch import Tensor, nn

from dgs import GradientSGD, Layout, WarmUp
from dgs.errors import NotConnectedError


def test_it_is_an_optimizer_with_groups_of_their_own() -> None:
    """One step at density 1 moves each tensor by its own lr·(g + λw)."""
    start, model = tensors(0), Vectors(tensors(1))
    groups = [
        {"params": [model.matrix], "lr": 0.5},
        {"params": [model.table], "weight_decay": 0.25, "density": 1.0},
        {"params": [model.bias], "lr": 0.0},
    ]
    with Fleet(Vectors(start), mode="gd", density=0.01) as fleet:
        worker = fleet.join(model, groups, lr=0.125)
        assert isinstance(worker, torch.optim.Optimizer)
        set_grads(model, tensors(2))
        worker.step()
        g = tensors(2)
        theta = dict(zip(SHAPES, fleet.state.theta.split([2000, 1800, 50]), strict=True))
        assert int((theta["matrix"] != start["matrix"].view(-1)).sum()) == 20
        table = start["table"] - 0.125 * (g["table"] + 0.25 * start["table"])
        assert torch.equal(theta["table"], table.view(-1))
        assert torch.equal(theta["bias"], start["bias"].view(-1))
        moved = (theta["matrix"] - start["matrix"].view(-1)).abs().max()
        assert float(moved) == pytest.approx(0.5 * float(g["matrix"].abs().max()), rel=1e-6)


def test_named_parameters_are_taken_too() -> None:
    model = Vectors(tensors(1))
    optimizer = unconnected(model, model.named_parameters())
    assert optimizer._replica is not None
    assert [s.name for s in optimizer._replica.layout.segments] == list(SHAPES)


def test_the_first_gradient_is_taken_at_the_servers_weights() -> None:
    with Fleet(Vectors(tensors(0))) as fleet:
        model = Vectors(tensors(1))
        fleet.join(model)
        for name, value in tensors(0).items():
            assert torch.equal(model.get_parameter(name).detach(), value)


def test_the_closure_is_evaluated_once_with_gradients_and_its_loss_returned() -> None:
    calls = []
    with Fleet(Vectors(tensors(0))) as fleet:
        model = Vectors(tensors(1))
        worker = fleet.join(model, lr=0.1)

        def closure() -> Tensor:
            worker.zero_grad()
            loss = sum(p.square().sum() for p in model.parameters())
            loss.backward()
            calls.append(loss.item())
            return loss

        assert worker.step(closure).item() == calls[0] and len(calls) == 1
        worker.step(closure)
        assert calls[1] < calls[0]
        worker.zero_grad(set_to_none=True)
        assert all(p.grad is None for p in model.parameters())
        worker.step()
        worker.zero_grad(set_to_none=False)
        assert worker.version == 3


def test_lr_schedulers_drive_it_and_a_joiner_at_half_time_takes_half_times_rate() -> None:
    with Fleet(Vectors(tensors(0)), max_version=8) as fleet:
        models = [Vectors(tensors(1)) for _ in range(2)]

        def ready(model: nn.Module) -> tuple[GradientSGD, Any]:
            worker = fleet.join(model, lr=0.8)
            return worker, torch.optim.lr_scheduler.LambdaLR(worker, lambda _: 1.0 - worker.progress)

        worker, scheduler = ready(models[0])
        rates = []
        for seed in range(4):
            set_grads(models[0], tensors(seed))
            worker.step()
            scheduler.step()
            rates.append(worker.param_groups[0]["lr"])
        assert rates == pytest.approx([0.7, 0.6, 0.5, 0.4])
        late, _ = ready(models[1])
        assert late.progress == 0.5 and late.param_groups[0]["lr"] == pytest.approx(0.4)


def test_a_joiner_takes_the_density_of_the_version() -> None:
    with Fleet(Vectors(tensors(0)), mode="gd", dense_below=0) as fleet:
        models = [Vectors(tensors(1)) for _ in range(2)]
        numel, fingerprint = fleet.state.layout.numel, fleet.state.layout.fingerprint

        def sent(worker: int) -> int:
            fleet.workers[worker].step()
            return int((fleet.taps[worker].last_push(numel, fingerprint)[:2000] != 0).sum())

        for model in models:
            set_grads(model, tensors(3))
        fleet.join(models[0], lr=0.1, schedule=WarmUp(0.01, steps=2))
        assert [sent(0) for _ in range(3)] == [500, 500, 125]
        fleet.join(models[1], lr=0.1, schedule=WarmUp(0.01, steps=2))
        assert [sent(1), sent(1)] == [125, 32], "the joiner starts at version 3, not at the first epoch"


def test_the_run_ends_for_everyone_at_max_version() -> None:
    with Fleet(Vectors(tensors(0)), max_version=3) as fleet:
        models = [Vectors(tensors(1)) for _ in range(2)]
        one, two = (fleet.join(model, lr=0.1) for model in models)
        for model in models:
            set_grads(model, tensors(2))
        for _ in range(3):
            assert not one.done
            one.step()
        assert one.done and one.progress == 1.0 and one.version == 3
        assert not two.done, "it has not heard yet"
        before = state_of(two)["velocity"]
        two.step()
        assert two.done and fleet.state.version == 3
        assert same_bits(before, state_of(two)["velocity"]), "a push that came too late is not taken as sent"
        weights, frames = weights_of(two), len(fleet.taps[1].sent)
        two.step()
        assert same_bits(weights, weights_of(two)) and len(fleet.taps[1].sent) == frames


def test_grad_scaler_skips_the_steps_that_overflow() -> None:
    """Of float32 parameters: the scaler itself refuses float16 gradients."""
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), mode="gd", density=1.0) as fleet:
        worker = fleet.join(model, lr=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=1)
        for value, version in ((0.25, 1), (math.inf, 1), (0.25, 2)):
            worker.zero_grad()
            scaler.scale(sum((p * value).sum() for p in model.parameters())).backward()
            scaler.step(worker)
            scaler.update()
            assert worker.version == version
        expected = torch.cat([t.view(-1) for t in tensors(0).values()]) - 0.25
        torch.testing.assert_close(fleet.state.theta, expected, rtol=0, atol=1e-6)


def test_steps_need_a_connection() -> None:
    model = Vectors(tensors(1))
    with pytest.raises(NotConnectedError, match="connect"):
        unconnected(model).step()
    with Fleet(Vectors(tensors(0)), world_size=2) as fleet:
        worker = fleet.join(model, connect=False)
        assert (worker.version, worker.progress, worker.done, worker.rank) == (0, 0.0, False, 0)
        worker.connect()
        worker.connect()
        assert (worker.rank, worker.worker_index, worker.num_workers) == (1, 0, 1)
        worker.step()
        worker.close()
        worker.close()
        with pytest.raises(NotConnectedError, match="close"):
            worker.step()
        with pytest.raises(NotConnectedError), worker.server_model():
            pass


def test_a_with_block_tells_how_it_ended() -> None:
    with Fleet(Vectors(tensors(0)), world_size=3) as fleet:
        with fleet.join(Vectors(tensors(1)), rank=1):
            pass
        with pytest.raises(KeyError), fleet.join(Vectors(tensors(1)), rank=2):
            raise KeyError("lost key")
    assert fleet.report is not None
    told = {w.rank: (w.outcome, w.reason) for w in fleet.report.workers}
    assert told == {1: ("finished", ""), 2: ("failed", "KeyError('lost key')")}


def test_places_for_a_data_sampler() -> None:
    with Fleet(Vectors(tensors(0)), world_size=4) as fleet:
        places = [fleet.join(Vectors(tensors(1)), rank=rank) for rank in (3, 1)]
        assert [(w.rank, w.worker_index, w.num_workers) for w in places] == [(3, 2, 3), (1, 0, 3)]
    with Fleet(Vectors(tensors(0))) as fleet:
        places = [fleet.join(Vectors(tensors(1))) for _ in range(2)]
        assert [(w.worker_index, w.num_workers) for w in places] == [(0, 1), (1, 2)]


def test_traffic_counts_whole_frames() -> None:
    with Fleet(Vectors(tensors(0))) as fleet:
        model = Vectors(tensors(1))
        worker = fleet.join(model, lr=0.1)
        assert (worker.traffic.bytes_up, worker.traffic.bytes_down, worker.traffic.exchanges) == (0, 0, 0)
        before = len(fleet.taps[0].sent), len(fleet.taps[0].received)
        for seed in range(3):
            set_grads(model, tensors(seed))
            worker.step()
        up, down = fleet.taps[0].sent[before[0] :], fleet.taps[0].received[before[1] :]
        assert len(up) == len(down) == worker.traffic.exchanges == 3
        assert worker.traffic.bytes_up == sum(f.numel() for f in up)
        assert worker.traffic.bytes_down == sum(f.numel() for f in down)
        assert worker.traffic.waiting > 0 and worker.traffic.staleness == 0


def test_nothing_keeps_an_optimizer_alive_that_is_dropped_without_close() -> None:
    """Its goodbye is said when it is collected."""
    with Fleet(Vectors(tensors(0)), world_size=2, grace=60.0) as fleet:
        worker = fleet.join(Vectors(tensors(1)))
        fleet.workers.clear()
        del worker
        gc.collect()
        fleet._thread.join(timeout=20)
        assert not fleet._thread.is_alive()
    assert fleet.report is not None and [w.outcome for w in fleet.report.workers] == ["finished"]


def test_its_signature_is_the_one_that_users_know() -> None:
    names = list(inspect.signature(GradientSGD.__init__).parameters)[1:7]
    assert names == ["params", "lr", "model", "momentum", "weight_decay", "args"]


def test_the_clip_of_dgc_is_by_the_workers_of_the_last_reply() -> None:
    models = [Vectors(tensors(1)) for _ in range(2)]
    with Fleet(Vectors(tensors(0)), mode="dgc", density=1.0, clip=1.0) as fleet:
        one, _ = (fleet.join(model) for model in models)
        numel, fingerprint = fleet.state.layout.numel, fleet.state.layout.fingerprint
        norms = []
        for seed in (2, 3):
            set_grads(models[0], tensors(seed))
            one.step()
            norms.append(float(fleet.taps[0].last_push(numel, fingerprint).norm()))
        assert norms == pytest.approx([1.0, 1 / math.sqrt(2)], rel=1e-4), "alone when it joined"


def test_k_is_not_computed_anew_when_only_the_rate_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = Vectors(tensors(1)), []
    count = Layout.counts

    def counted(densities: Any) -> Tensor:
        calls.append(densities)
        return count(layout, densities)

    with Fleet(Vectors(tensors(0)), density_down=0.5) as fleet:
        worker = fleet.join(model, lr=0.1)
        layout = worker._replica.layout
        monkeypatch.setattr(layout, "counts", counted)
        for density in (0.1, 0.2):
            worker.param_groups[0]["density"] = density
            for lr in (0.3, 0.2, 0.1):
                worker.param_groups[0]["lr"] = lr
                set_grads(model, tensors(2))
                worker.step()
        assert calls == [[0.1] * 3, [0.2] * 3]
