# SPDX-License-Identifier: Apache-2.0
"""The parameter server: θ and mirrors (state), one session per worker, joins and the end of the run (service)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from .. import buffers as module_buffers
from .. import config, metrics
from ..buffers import BufferStore
from ..checkpoint import Names
from ..config import Settings
from ..errors import ConfigError
from ..hyper import warn_of_idle
from ..layout import Layout, trainable, unwrapped
from ..methods import METHODS
from ..threads import share_cores
from ..transport import GlooListener, Listener
from .ending import orderly_end
from .evaluation import Evaluator, ModelSnapshot, OnVersion, model_snapshot
from .keeper import Keeper, folder_of, resumed
from .record import WorkerRecord
from .service import Report, Server
from .state import ServerState

__all__ = ["ModelSnapshot", "Report", "Server", "ServerState", "WorkerRecord", "init_server"]

log = logging.getLogger(__name__)


def init_server(
    args: object | None,
    net: nn.Module,
    *,
    on_version: OnVersion | None = None,
    every: int = 1,
    listener: Listener | None = None,
    stop: threading.Event | None = None,
    state: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Report:
    """Serves the parameters of `net` until the workers are done; `net` then holds the trained parameters and buffers.

    Returns when each of the `world_size - 1` workers has finished, when none has been alive for `grace` seconds, or
    when none came within `join_timeout`. Without a world size it serves until `max_version`, until `stop` is set, or
    until interrupted (Ctrl-C, SIGTERM: `net` is loaded and the last checkpoint written, then KeyboardInterrupt, or
    SystemExit(143), goes on). With `checkpoint_dir` it writes checkpoints; `checkpoint_resume` goes on from the last.

    Args:
        args: any object with attributes named like settings, each optional; or None.
        net: the model, with its initial weights.
        on_version: called with a ModelSnapshot each time `every` versions have passed, and at the last (at
            `max_version` with the batch-norm statistics of all goodbyes), in a thread of its own. Numbers that it
            returns by name, as {"accuracy": 0.93}, are kept with the run's.
        every: versions between two calls.
        listener: where workers come; by default gloo at `master`:`port`.
        stop: set it from another thread or a signal handler to end the run.
        state: where an earlier server ended, a Report's or a ModelSnapshot's; instead of the weights of `net`, and
            of a checkpoint.
        settings: see dgs.config.Settings.

    Returns:
        A Report: the last version, and how each worker ended.

    Raises:
        ConfigError, LayoutError: the settings, the model or the state cannot be served.
        PortInUseError: the port, or that for Prometheus, is taken.
        CheckpointError: none of the checkpoints can be read, or the first or the last cannot be written.
    """
    resolved = config.resolve(args, **settings)
    _check(resolved, every)
    warn_of_idle(resolved)
    net = unwrapped(net)
    layout = layout_of(net, resolved)
    folder = folder_of(resolved)
    if folder is not None and state is None:
        state = resumed(folder, layout, resolved)
    share_cores(resolved, server=True)
    with torch.no_grad():
        theta = torch.cat([p.detach().float().reshape(-1).cpu() for _, p in trainable(net)])
    parameters = ServerState(
        layout, theta, device=_device(resolved), max_version=resolved.max_version, sampled=resolved.sampled
    )
    store = store_of(net, layout, resolved)
    with ExitStack() as stack:
        listener = listener or _listener(resolved)
        stack.callback(listener.close)
        dense, sizes = METHODS[resolved.mode].dense, [s.numel for s in layout.segments]
        collector = metrics.collector(resolved, sizes)
        server = Server(parameters, store, resolved, listener, dense=dense, stop=stop, observer=collector)
        if state is not None:
            server.load_state_dict(state)
        stack.enter_context(orderly_end(server))
        # After the last call of on_version, which may load into `net` too.
        stack.callback(lambda: model_snapshot(parameters, store).load_into(net))
        if folder is not None:
            stack.enter_context(Keeper(folder, server.state_dict, layout, Names.of(net), resolved))
        if collector is not None:
            run = stack.enter_context(metrics.Run(collector, resolved, args, sizes))
            on_version = None if on_version is None else run.watched(on_version)
        if on_version is not None:
            stack.enter_context(Evaluator(parameters, store, on_version, every, server.state_dict))
        log.info("serving %d parameters at %s:%d", layout.numel, resolved.master, resolved.port)
        report = server.serve()
    for worker in report.workers:
        if worker.outcome not in ("finished", "paused"):
            log.warning("worker %d %s: %s", worker.rank, worker.outcome, worker.reason)
    return report


def store_of(net: nn.Module, layout: Layout, settings: Settings) -> BufferStore:
    """The model's buffers and frozen parameters, to begin with."""
    frozen = module_buffers.frozen(net, {s.name for s in layout.segments})
    packed = module_buffers.pack(frozen, layout.frozen)
    return BufferStore(layout.buffers, module_buffers.of(net), settings.buffers, packed)


def layout_of(net: nn.Module, settings: Settings) -> Layout:
    """The layout of a model's trainable parameters."""
    tensors = [(name, tuple(p.shape)) for name, p in trainable(net)]
    return Layout(
        tensors,
        module_buffers.spec(net),
        module_buffers.frozen_spec(net, {name for name, _ in tensors}),
        dense_below=settings.dense_below,
        compress_all=settings.compress_all,
    )


def _check(settings: Settings, every: int) -> None:
    if settings.local:
        raise ConfigError(
            "mode sgd has no server: train in the process of rank 0 instead of calling init_server"
        )
    if settings.rank not in (None, 0):
        raise ConfigError(f"init_server is for rank 0, got rank {settings.rank}")
    if every < 1:
        raise ConfigError(f"every must be at least 1, got {every}")


def _listener(settings: Settings) -> Listener:
    run = config.agent_run(settings)
    return GlooListener(settings.master, settings.port, address=settings.address, agent_run=run)


def _device(settings: Settings) -> torch.device:
    if settings.cuda and not torch.cuda.is_available():
        log.warning("no CUDA device for the server's parameters: they stay on the CPU")
    return torch.device("cuda" if settings.cuda and torch.cuda.is_available() else "cpu")
