# SPDX-License-Identifier: Apache-2.0
"""Every kind of parameter, and the watch over who writes the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, state_of, weights_of
from torch import Tensor, nn

from dgs import GradientSGD
from dgs.errors import ConfigError, DriftError, NotConnectedError

SHAPES = {"matrix": (40, 50), "bias": (50,)}


def tensors(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten()
    )


def backward(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model.zero_grad()
    model(torch.randn(4, 3, 8, 8, generator=generator)).square().mean().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("mode", ["dgs", "asgd"])
def test_half_precision_parameters_have_float32_masters(mode: str, dtype: torch.dtype) -> None:
    """Steps far below the parameter's own precision add up in the master, which is the mirror bit for bit."""
    model = Vectors(tensors(1, dtype))
    with Fleet(Vectors(tensors(0, dtype)), mode=mode, density=1.0) as fleet:
        worker = fleet.join(model, lr=1e-5)
        start = weights_of(worker)
        for _ in range(8):
            set_grads(model, {name: torch.ones(shape) for name, shape in SHAPES.items()})
            worker.step()
        masters = weights_of(worker)
        torch.testing.assert_close(masters, start - 8e-5, rtol=0, atol=1e-6)
        if mode == "dgs":
            assert same_bits(masters, fleet.state.mirrors[0].weights)
        held = torch.cat([p.detach().view(-1) for p in model.parameters()])
        assert held.dtype == dtype and torch.equal(held, masters.to(dtype))


def test_channels_last_parameters_follow_their_contiguous_twins() -> None:
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = network(1).to(memory_format=memory_format)
        with Fleet(network(0), density=0.05, dense_below=0) as fleet:
            worker = fleet.join(model, lr=0.1)
            for seed in range(3):
                backward(model, seed)
                worker.step()
                assert same_bits(weights_of(worker), fleet.state.mirrors[0].weights)
            assert model[3].weight.is_contiguous(memory_format=memory_format)
            found.append([p.detach().clone() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_tied_parameters_are_trained_as_one() -> None:
    def tied(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Embedding(60, 20), nn.Linear(20, 60, bias=False))
        model[1].weight = model[0].weight
        return model

    model = tied(1)
    with Fleet(tied(0), mode="asgd") as fleet:
        worker = fleet.join(model, lr=0.5)
        start = fleet.state.theta
        model(torch.arange(8)).square().mean().backward()
        gradient = model[0].weight.grad.clone()
        worker.step()
        assert fleet.state.layout.numel == 1200 and model[1].weight is model[0].weight
        assert torch.equal(fleet.state.theta, start - 0.5 * gradient.view(-1))


def test_parameters_without_gradient_are_not_sent() -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model, lr=0.5, weight_decay=0.5)
        start = fleet.state.theta
        set_grads(model, {"bias": torch.ones(50)})
        worker.step()
        assert torch.equal(fleet.state.theta[:2000], start[:2000])
        torch.testing.assert_close(fleet.state.theta[2000:], start[2000:] - 0.5 * (1 + 0.5 * start[2000:]))
        set_grads(model, {})
        worker.step()
        assert worker.version == 2, "a step without any gradient is an exchange all the same"


def test_sparse_gradients_of_an_embedding() -> None:
    def embedding(sparse: bool) -> nn.Module:
        torch.manual_seed(0)
        return nn.Embedding(100, 20, sparse=sparse)

    states = []
    for sparse in (True, False):
        model = embedding(sparse)
        with Fleet(embedding(sparse), mode="dgs", density=0.05) as fleet:
            worker = fleet.join(model, lr=0.5, momentum=0.5)
            for rows in ([1, 5, 5, 7], [2, 5]):
                model.zero_grad()
                model(torch.tensor(rows)).square().sum().backward()
                assert model.weight.grad.is_sparse is sparse
                worker.step()
            states.append((fleet.state.theta, state_of(worker)["velocity"]))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def replaced(model: Vectors) -> None:
    model.matrix.data = model.matrix.data + 1.0


def in_place(model: Vectors) -> None:
    with torch.no_grad():
        model.matrix.add_(1.0)


def past_autograd(model: Vectors) -> None:
    model.matrix.data.add_(1.0)


ALTERATIONS: list[Callable[[Vectors], None]] = [replaced, in_place, past_autograd]


@pytest.mark.parametrize("alter", ALTERATIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_written_by_something_else_are_noticed(
    alter: Callable[[Vectors], None], dtype: torch.dtype
) -> None:
    """Within as many steps as there are tensors, the digest being of one at a time."""
    model = Vectors(tensors(1, dtype))
    with Fleet(Vectors(tensors(0, dtype)), compress_all=True) as fleet:
        worker = fleet.join(model, lr=0.1)
        alter(model)
        with pytest.raises(DriftError, match="matrix") as raised:
            for seed in range(len(SHAPES)):
                set_grads(model, {"bias": tensors(seed)["bias"]})
                worker.step()
        assert raised.value.tensor == "matrix"
        assert "on_drift='snapshot'" in str(raised.value)


@pytest.mark.parametrize("alter", ALTERATIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_or_by_option_taken_anew(
    alter: Callable[[Vectors], None], dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    model = Vectors(tensors(1, dtype))
    with Fleet(Vectors(tensors(0, dtype)), on_drift="snapshot", density_down=1.0) as fleet:
        worker = fleet.join(model, lr=0.1)
        alter(model)
        for seed in range(1 + len(SHAPES)):
            set_grads(model, tensors(seed))
            worker.step()
        assert worker.version == 1 + len(SHAPES)
        assert len(fleet.state.mirrors) == 2 and "taken anew" in caplog.text
        assert same_bits(weights_of(worker), fleet.state.mirrors[-1].weights)
        held = torch.cat([p.detach().view(-1) for p in model.parameters()])
        assert torch.equal(held, weights_of(worker).to(dtype))


def test_loading_a_checkpoint_into_the_model_is_noticed() -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0))) as fleet:
        worker = fleet.join(model)
        model.load_state_dict(Vectors(tensors(2)).state_dict())
        with pytest.raises(DriftError, match="matrix was written or replaced"):
            worker.step()


@pytest.mark.parametrize("failing", [False, True])
def test_the_servers_model_is_shown_and_the_workers_put_back_bit_for_bit(failing: bool) -> None:
    models = [network(seed) for seed in (1, 2)]
    with Fleet(network(0), density=0.01, dense_below=0, density_down=0.01, buffers_every=1) as fleet:
        one, two = (fleet.join(model, lr=0.5) for model in models)
        for seed in range(3):
            for model, worker in zip(models, (one, two), strict=True):
                backward(model, seed)
                worker.step()
        with two.server_model():
            pass  # answered behind its buffers: from here on the server's stand still
        backward(models[0], 9)
        own = {name: value.clone() for name, value in models[0].state_dict().items()}
        state = state_of(one)
        theta = fleet.state.theta
        try:
            with one.server_model() as shown:
                assert shown is models[0]
                flat = torch.cat([p.detach().reshape(-1) for p in shown.parameters()])
                assert same_bits(flat, theta) and not same_bits(flat, state["weights"])
                for name, buffer in fleet.buffers.current().items():
                    assert torch.equal(shown.get_buffer(name), buffer)
                with pytest.raises(NotConnectedError, match="server_model"):
                    one.step()
                with pytest.raises(NotConnectedError), one.server_model():
                    pass
                if failing:
                    raise KeyError("during evaluation")
        except KeyError:
            assert failing
        assert all(same_bits(value, models[0].state_dict()[name]) for name, value in own.items())
        assert all(same_bits(value, state_of(one)[name]) for name, value in state.items())
        version = one.version
        one.step()
        assert one.version == version + 1
        assert same_bits(weights_of(one), fleet.state.mirrors[0].weights)


def test_the_servers_buffers_are_the_mean_of_the_workers_last() -> None:
    models = [network(seed) for seed in (1, 2)]
    with Fleet(network(0), buffers_every=2) as fleet:
        workers = [fleet.join(model, lr=0.01) for model in models]
        sent: list[dict[str, Tensor]] = []
        for model, worker in zip(models, workers, strict=True):
            for seed in range(2):
                backward(model, seed + len(sent))
                worker.step()
            sent.append({name: b.clone() for name, b in model.named_buffers()})
            with worker.server_model():
                pass
        mean = fleet.buffers.current()
        for name in ("1.running_mean", "1.running_var"):
            torch.testing.assert_close(mean[name], (sent[0][name] + sent[1][name]) / 2)
        assert int(mean["1.num_batches_tracked"]) == 2
        joiner = network(3)
        fleet.join(joiner)
        assert torch.equal(joiner[1].running_mean, mean["1.running_mean"])


def test_no_buffers_travel_by_option() -> None:
    model = network(1)
    with Fleet(network(0), buffers="none", buffers_every=1) as fleet:
        worker = fleet.join(model)
        backward(model, 0)
        worker.step()
        with worker.server_model() as shown:
            assert not shown[1].running_mean.any(), "the server's own"
        assert model[1].running_mean.any()


def test_looking_at_the_servers_model_does_not_make_the_own_weights_newer() -> None:
    models = [Vectors(tensors(seed)) for seed in (1, 2)]
    with Fleet(Vectors(tensors(0))) as fleet:
        one, two = (fleet.join(model, lr=0.1) for model in models)
        for _ in range(3):
            two.step()
        with one.server_model():
            pass
        assert one.version == 3
        one.step()
        assert one.traffic.staleness == 3


def test_a_model_is_needed_to_show_one() -> None:
    optimizer = GradientSGD(network(0).parameters(), mode="sgd")
    with pytest.raises(ConfigError, match="model"), optimizer.server_model():
        pass


def given_layouts() -> list[Any]:
    return [{"matrix": (0, 7), "bias": (3,)}, {"matrix": (40, 50), "bias": ()}]


@pytest.mark.parametrize("shapes", given_layouts(), ids=str)
@pytest.mark.parametrize("mode", ["dgs", "dgc", "asgd"])
def test_empty_and_scalar_tensors(mode: str, shapes: dict[str, tuple[int, ...]]) -> None:
    model = Vectors({name: torch.ones(shape) for name, shape in shapes.items()})
    with Fleet(Vectors({name: torch.zeros(shape) for name, shape in shapes.items()}), mode=mode) as fleet:
        worker = fleet.join(model, lr=0.5)
        for _ in range(3):
            set_grads(model, {name: torch.ones(shape) for name, shape in shapes.items()})
            worker.step()
        assert bool((model.bias == -1.5).all())


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=lambda f: f.__name__)
def test_a_wrapped_model_is_the_one_inside(
    wrap: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # DataParallel moves the model there
    model = network(1)
    with Fleet(network(0)) as fleet:
        wrapped = wrap(model)
        worker = fleet.join(wrapped, lr=0.1)
        assert torch.equal(weights_of(worker), fleet.state.theta)
        backward(model, 2)
        worker.step()
        assert fleet.state.version == 1
        with worker.server_model() as shown:
            assert shown is wrapped


def test_the_last_buffers_are_sent_by_close() -> None:
    model = network(1)
    with Fleet(network(0), buffers_every=1000) as fleet:
        worker = fleet.join(model, lr=0.1)
        for seed in (2, 3, 4):
            backward(model, seed)
            worker.step()
        mean = model[1].running_mean.clone()
        assert not torch.equal(fleet.buffers.current()["1.running_mean"], mean), "not due yet"
        worker.close()
    assert torch.equal(fleet.buffers.current()["1.running_mean"], mean)


@pytest.mark.parametrize("mode", ["dgs", "asgd"])
def test_autograd_knows_that_a_step_has_written_the_weights(mode: str) -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), mode=mode) as fleet:
        worker = fleet.join(model, lr=0.1)
        loss = model.matrix.square().sum()
        set_grads(model, tensors(2))
        worker.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
