# SPDX-License-Identifier: Apache-2.0
"""A real server in a thread, and real workers in the test's own.

One exchange at a time, so that a run is deterministic.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dgs import GradientSGD, config
from dgs.methods import METHODS
from dgs.room import Room
from dgs.server import Report, Server, ServerState, layout_of, store_of
from dgs.server.state import Mirror, Snapshot
from dgs.transport import InProcessListener, Link
from dgs_ext import wire
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec

SHAPES = {"matrix": (40, 50), "table": (60, 30), "bias": (50,)}


def tensors(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random tensors of SHAPES by name."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def unconnected(model: nn.Module, params: Any = None, **keywords: Any) -> GradientSGD:
    """An optimizer that has no server."""
    given = model.parameters() if params is None else params
    return GradientSGD(given, model=model, connect=False, **keywords)


class Vectors(nn.Module):
    """A module of nothing but the given parameters."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor.clone()))


def set_grads(model: nn.Module, grads: Mapping[str, Tensor]) -> None:
    """Gives every named parameter its gradient; the others have none."""
    for name, p in model.named_parameters():
        p.grad = grads[name].to(p.dtype) if name in grads else None


def filled(selection: Selection) -> tuple[Tensor, Tensor]:
    """Copies of the indices and values in a selection. (Its `compact` keeps all cores waiting for each other.)"""
    rows = list(zip(selection.starts.tolist(), selection.nnz.tolist(), strict=False))
    return (
        torch.cat([selection.indices[at : at + n] for at, n in rows]),
        torch.cat([selection.values[at : at + n] for at, n in rows]),
    )


class WatchedState(ServerState):
    """The server's state, with the log of what was done to it."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.mirrors: list[Mirror] = []
        self.log: list[tuple[Any, ...]] = []

    @property
    def theta(self) -> Tensor:
        return self.snapshot().theta

    def push_sparse(self, indices: Tensor, values: Tensor) -> Any:
        self.log.append(("push", indices.clone(), values.clone()))
        return super().push_sparse(indices, values)

    def push_dense(self, values: Tensor) -> Any:
        self.log.append(("push", None, values.clone()))
        return super().push_dense(values)

    def pull(self, mirror: Mirror, counts: Tensor, codec: Codec, room: Room) -> tuple[int, Selection]:
        version, selection = super().pull(mirror, counts, codec, room)
        number = next(i for i, known in enumerate(self.mirrors) if known is mirror)
        self.log.append(("pull", number, counts.clone(), codec, *filled(selection)))
        return version, selection

    def mirror(self, snapshot: Snapshot) -> Mirror:
        made = super().mirror(snapshot)
        self.log.append(("mirror", snapshot.version, made.weights.clone()))
        return made

    def mirror_of(self, weights: Tensor) -> Mirror:
        made = super().mirror_of(weights)
        self.mirrors.append(made)
        return made


class Tap:
    """A link that keeps a copy of every frame."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self.sent: list[Tensor] = []
        self.received: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    ask = Link.ask  # through this one's send and receive

    def send(self, frame: Tensor, timeout: Any) -> None:
        self.sent.append(frame.clone())
        self._link.send(frame, timeout)

    def receive(self, timeout: Any) -> Tensor:
        frame: Tensor = self._link.receive(timeout)
        self.received.append(frame.clone())
        return frame

    def last_push(self, numel: int, fingerprint: int) -> Tensor:
        """The last push, as the vector that the server subtracted."""
        frame = next(f for f in reversed(self.sent) if wire.parse_header(f).kind is wire.Kind.PUSH)
        indices, values = torch.empty(numel, dtype=torch.int64), torch.empty(numel)
        decoded = wire.decode(frame, numel=numel, fingerprint=fingerprint, indices=indices, values=values)
        if decoded.form == "dense":
            return values
        flat = torch.zeros(numel)
        flat[indices[: decoded.count]] = values[: decoded.count]
        return flat


class Fleet:
    """A server of `model`, and the workers that `join` it. `settings` are given to both."""

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        self._settings = settings
        resolved = config.resolve(None, {}, **settings)
        layout = layout_of(model, resolved)
        theta = torch.cat([p.detach().float().reshape(-1) for p in model.parameters() if p.requires_grad])
        self.state = WatchedState(
            layout,
            theta,
            device=torch.device("cpu"),
            max_version=resolved.max_version,
            sampled=resolved.sampled,
        )
        self.buffers = store_of(model, layout, resolved)
        self.listener = InProcessListener()
        dense = METHODS[resolved.mode].dense
        self.server = Server(self.state, self.buffers, resolved, self.listener, dense=dense)
        self.workers: list[GradientSGD] = []
        self.taps: list[Tap] = []
        self.report: Report | None = None
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        self.report = self.server.serve()

    def dial(self, _timeout: Any) -> Any:
        self.taps.append(Tap(self.listener.dial()))
        return self.taps[-1]

    def join(self, model: nn.Module, params: Any = None, **keywords: Any) -> GradientSGD:
        """A worker that trains `model`."""
        given = {"lr": 1.0, "dial": self.dial} | self._settings | keywords
        worker = GradientSGD(model.parameters() if params is None else params, model=model, **given)
        self.workers.append(worker)
        return worker

    def __enter__(self) -> Fleet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.close()
        self.server.stop()
        self._thread.join()


def weights_of(worker: GradientSGD) -> Tensor:
    """The float32 weights that a worker holds, flat."""
    assert worker._replica is not None
    return worker._replica.weights.flat()


def state_of(worker: GradientSGD) -> dict[str, Tensor]:
    """Copies of everything model-sized that a worker holds."""
    assert worker._replica is not None
    state = {name: flat.clone() for name, flat in worker._replica.method.buffers().items()}
    parameters = {f"parameter {i}": p.detach().clone() for i, p in enumerate(worker._replica.parameters)}
    return state | parameters | {"weights": weights_of(worker)}


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one dtype hold the same bits (so -0 is not +0, and NaN is NaN)."""
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(kind), b.view(kind))
