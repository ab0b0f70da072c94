# SPDX-License-Identifier: Apache-2.0
"""A whole run in one process and in virtual time, with the production code of worker and server (docs/simulation.md).

result = simulate(make_net, loss, batches, workers=8, max_version=1000, compute=LogNormal(0.1),
                  network=Network.of(1e9, latency=1e-4), mode="dgs", evaluate=accuracy, every=100)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import config
from ..errors import ConfigError
from ..methods import LOCAL_METHODS
from ..schedules import DensitySchedule
from ..weights import digest
from .clock import Clock
from .compute import Always, Compute, Exponential, LogNormal, Straggler
from .host import Host
from .network import Network, ServerCost, rate_of
from .node import Node, Randomness, Rate, Task
from .place import Place, Presence
from .recorder import Evaluate, Recorder
from .result import Point, Result, Step, Use
from .run import Simulation
from .wires import Wires

__all__ = [
    "WITHOUT_EFFECT",
    "Always",
    "Compute",
    "Exponential",
    "LogNormal",
    "Network",
    "Point",
    "Presence",
    "Result",
    "ServerCost",
    "Step",
    "Straggler",
    "Use",
    "simulate",
]

# Settings of processes, links, files and devices: a simulation has none of them.
WITHOUT_EFFECT = frozenset({
    "rank", "world_size", "master", "port", "address", "token", "connect_timeout", "exchange_timeout",
    "rejoin_timeout", "heartbeat", "heartbeat_timeout", "grace", "join_timeout", "checkpoint_dir", "checkpoint_every",
    "checkpoint_keep", "checkpoint_resume", "run_dir", "metrics_every", "tensorboard", "progress", "prometheus_port",
    "prometheus_address", "cuda",
})  # fmt: skip
_NEVER = {"heartbeat": 1e8, "heartbeat_timeout": 1e9}  # seconds: in virtual time nobody listens for one


def simulate(
    model: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Callable[[int], Iterable[Any]],
    *,
    workers: int,
    max_version: int,
    lr: Rate = 0.1,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: DensitySchedule | None = None,
    compute: Compute = Always(1.0),  # noqa: B008 - frozen
    network: Network = Network(),  # noqa: B008
    server: ServerCost = ServerCost(),  # noqa: B008
    presence: Mapping[int, Presence] | None = None,
    overlap: bool = False,
    evaluate: Evaluate | None = None,
    every: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> Result:
    """Trains `model` by asynchronous workers in virtual time, bitwise the same for the same seed.

    The caller's thread does all the work; torch's global random numbers are as before when it returns. What draws
    others (numpy's, random's) in `loss` or `batches` has to seed them itself.

    Args:
        model: makes the model; called for the server and for each worker.
        loss: of the model on a batch, a scalar; its gradient is taken for every step.
        batches: those of the worker with this index, from 0; begun anew when they end.
        workers: how many; 1 in mode sgd, which has no server.
        max_version: pushes after which the run is over.
        lr: the learning rate, or a function of the run's progress in [0, 1].
        momentum, weight_decay, schedule: as for GradientSGD.
        compute: seconds of a gradient: Always, LogNormal, Exponential, Straggler, or any function of the worker's
            index and a random.Random of its own.
        network: rates and latency; by default frames take no time.
        server: what the server takes for a frame.
        presence: when a worker, by index, joins, leaves or dies, if not with the others.
        overlap: each worker computes its next gradient while its push and the reply travel.
        evaluate: measures the server's model, by name; it may leave it in eval mode.
        every: versions between two evaluations; None: only the end is evaluated.
        seed: of the initial weights, of the compute times, and of what loss and batches draw from torch.
        settings: see dgs.config.Settings; both worker and server get them. Not those of WITHOUT_EFFECT.

    Returns:
        A Result.

    Raises:
        ConfigError, LayoutError: settings that do not go together, or a model that cannot be trained.
        DivergedError, NonFiniteGradientError: the training came to nothing.
    """
    presence = presence or {}
    _check(workers, max_version, every, presence, settings)
    network.check(workers)
    settings = {"threads": torch.get_num_threads(), "max_version": max_version} | _NEVER | settings
    settings["overlap"] = (
        False  # that of the optimizer is a thread: here the halves of a step are called apart
    )
    resolved = config.resolve(None, **settings | {"rank": 0, "world_size": workers + 1})
    alone = resolved.mode in LOCAL_METHODS
    if alone and workers != 1:
        raise ConfigError(f"mode sgd is one worker without a server, got workers={workers}")
    own = Randomness(seed)
    with own:
        net, shown = model(), model()
        host = None if alone else Host(net, resolved)
    task = Task(
        model, loss, batches, lr, momentum, weight_decay, schedule, settings | {"world_size": workers + 1}
    )
    nodes = [Node(index, task, host, seed) for index in range(workers)]
    if host is None:
        nodes[0].model.load_state_dict(net.state_dict())
    recorder = Recorder(shown, evaluate, every, max_version, seed)
    clock = Clock()
    places = [
        Place(
            n,
            rate_of(network.up, n.index),
            rate_of(network.down, n.index),
            presence.get(n.index, Presence()),
        )
        for n in nodes
    ]
    wires = None if host is None else Wires(clock, host, network, server, recorder)
    Simulation(clock, places, wires, compute, overlap, recorder).run()
    return _result(places, wires, host, recorder)


def _check(
    workers: int,
    max_version: int,
    every: int | None,
    presence: Mapping[int, Presence],
    settings: Mapping[str, Any],
) -> None:
    for name in sorted(WITHOUT_EFFECT & settings.keys()):
        raise ConfigError(
            f"simulate: {name} has no effect where there are no processes, links, files or devices: leave it out"
        )
    for name, value in (("workers", workers), ("max_version", max_version), ("every", every)):
        if value is not None and value < 1:
            raise ConfigError(f"simulate: {name} must be at least 1, got {value}")
    for index in presence:
        if not 0 <= index < workers:
            raise ConfigError(f"simulate: presence names worker {index} of {workers}: they count from 0")


def _result(places: list[Place], wires: Wires | None, host: Host | None, recorder: Recorder) -> Result:
    node = places[0].node
    version = node.optimizer.version if host is None else host.state.version
    recorder.point(version, node.show if host is None else host.snapshot().load_into)
    busy, end = [0.0] * 3, max(p.left for p in places)  # the clock goes on to who would have died later
    if wires is not None and end:
        busy = [line.busy / end for line in (wires.incoming, wires.outgoing, wires.server)]
    flat = torch.cat([p.detach().float().reshape(-1) for p in recorder.shown.parameters()])
    return Result(
        model=recorder.shown,
        digest=digest(flat),
        seconds=recorder.reached,
        version=version,
        points=recorder.points,
        steps=recorder.steps,
        staleness=recorder.staleness,
        workers=[
            Use(max(0.0, p.left - p.presence.joins), p.computing, p.steps, p.pushes, p.node.optimizer.traffic)
            for p in places
        ],
        server_in=busy[0],
        server_out=busy[1],
        server=busy[2],
        ended=() if host is None else host.workers,
    )
