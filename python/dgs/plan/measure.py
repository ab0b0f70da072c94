# SPDX-License-Identifier: Apache-2.0
"""This machine's share of an exchange, measured: production's worker and server, called by turns in one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .. import config
from ..errors import ConfigError
from ..layout import Layout
from ..simulate.host import Host
from ..simulate.node import Node, Task
from .costs import Cost, Costs
from .sizes import dense, pull, push

_DENSITIES = (0.01, 0.05)  # two, for a line through them
_ALONE = {"heartbeat": 1e8, "heartbeat_timeout": 1e9}


class _Net(nn.Module):
    """Tensors of the layout's shapes, without arithmetic."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        super().__init__()
        for i, segment in enumerate(layout.segments):
            self.register_parameter(f"p{i}", nn.Parameter(torch.zeros(segment.shape, device=device)))

    def draw(self, generator: torch.Generator) -> None:
        """New gradients."""
        for p in self.parameters():
            p.grad = torch.randn(p.shape, generator=generator, device=p.device)


class _Pair:
    """A worker and a server of its own."""

    def __init__(self, make: Callable[[], _Net], mode: str, density: float) -> None:
        settings = _ALONE | {"mode": mode, "density": density, "threads": torch.get_num_threads()}
        host = Host(make(), config.resolve(None, rank=0, world_size=2, **settings))
        task = Task(make, _no_loss, _no_batches, 0.1, 0.0, 0.0, None, settings | {"world_size": 2})
        self.node = Node(0, task, host, 0)
        self.node.connect()
        self.worker: list[float] = []
        self.server: list[float] = []

    def exchange(self, generator: torch.Generator) -> None:
        """One push and its reply; notes how long each side took."""
        node, model = self.node, self.node.model
        assert isinstance(model, _Net) and node.end is not None
        model.draw(generator)
        began = _now(model)
        (frame,) = node.post()
        sent = _now(model)
        replies = node.end.deliver(frame)
        came = _now(model)
        node.end.inbox.extend(replies)
        node.settle()
        self.worker.append(_now(model) - began - (came - sent))
        self.server.append(came - sent)

    def seconds(self) -> tuple[float, float]:
        """What the worker and the server take."""
        return _usual(self.worker), _usual(self.server)


def measured(layout: Layout, device: torch.device, rounds: int = 9) -> Costs:
    """What this machine takes for an exchange, as a worker on `device` and as a server on its CPU.

    Args:
        layout: of the model that is to be trained; several copies of it are made.
        device: where the worker trains.
        rounds: exchanges of each kind, by turns; lower quartiles count.

    Raises:
        ConfigError: the device cannot be used.
    """
    try:
        generator = torch.Generator(device).manual_seed(0)
    except RuntimeError as error:
        raise ConfigError(
            f"device {str(device)!r} cannot be used: {str(error).partition(chr(10))[0]}"
        ) from None

    def make() -> _Net:
        return _Net(layout, device)

    pairs = [_Pair(make, "dgs", density) for density in _DENSITIES] + [_Pair(make, "asgd", 1.0)]
    for _ in range(rounds + 1):
        for pair in pairs:
            pair.exchange(generator)
    for pair in pairs:
        pair.node.leave()
    optimizer = _optimizer(make(), generator, rounds)
    sparse, (dense_worker, dense_server) = [pair.seconds() for pair in pairs[:-1]], pairs[-1].seconds()
    entries = [_entries(layout, density) for density in _DENSITIES]
    every = 2 * dense(layout, config.CODECS["float32"]).entries
    select, pack = _line(entries, [worker for worker, _ in sparse])
    pass_, serve = _line(entries, [server for _, server in sparse])
    return Costs(
        select=Cost(fixed=select),
        pack=Cost(per_entry=pack),
        serve=Cost(fixed=pass_, per_entry=serve),
        dense_worker=Cost(per_entry=max(0.0, dense_worker - optimizer) / every),
        dense_server=Cost(per_entry=dense_server / every),
        optimizer=Cost(fixed=optimizer),
        source=f"measured on this machine, {torch.get_num_threads()} threads, worker on {device}",
    )


def _entries(layout: Layout, density: float) -> int:
    codec = config.CODECS["float32"]
    up, (down, _) = push(layout, density, codec), pull(layout, 1, density, codec)
    return up.entries + down.entries


def _line(entries: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Seconds at no entries, and for each of them; neither negative."""
    few, many = entries
    if many == few:  # all tensors are sent whole: what a pass costs cannot be told from what entries cost
        return 0.0, statistics.fmean(seconds) / few
    slope = max(0.0, (seconds[1] - seconds[0]) / (many - few))
    return max(0.0, seconds[0] - slope * few), slope


def _optimizer(net: _Net, generator: torch.Generator, rounds: int) -> float:
    """Seconds of a step of momentum SGD."""
    sgd = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    net.draw(generator)
    times = []
    for _ in range(rounds + 1):
        began = _now(net)
        sgd.step()
        times.append(_now(net) - began)
    return _usual(times)


def _usual(times: Sequence[float]) -> float:
    """The lower quartile, which other work on the machine hardly moves; the first is left out: it allocates."""
    return statistics.quantiles(times[1:], n=4, method="inclusive")[0]


def _now(net: _Net) -> float:
    """The time when all that was asked of the net's device is done."""
    device = next(net.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _no_loss(model: nn.Module, batch: object) -> Tensor:
    raise NotImplementedError("gradients are drawn, not computed")


def _no_batches(index: int) -> Iterator[object]:
    while True:
        yield None
