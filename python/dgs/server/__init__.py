# SPDX-License-Identifier: Apache-2.0
"""The parameter server: θ and mirrors (state), one session per worker, joins and the end of the run (service)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from .. import buffers as module_buffers
from .. import config
from ..buffers import BufferStore
from ..config import Settings
from ..errors import ConfigError
from ..layout import Layout, trainable, unwrapped
from ..methods import METHODS
from ..threads import share_cores
from ..transport import GlooListener, Listener
from .evaluation import Evaluator, ModelSnapshot, model_snapshot
from .service import Report, Server
from .session import WorkerRecord
from .state import ServerState

__all__ = ["ModelSnapshot", "Report", "Server", "ServerState", "WorkerRecord", "init_server"]

log = logging.getLogger(__name__)


def init_server(
    args: object | None,
    net: nn.Module,
    *,
    on_version: Callable[[ModelSnapshot], None] | None = None,
    every: int = 1,
    listener: Listener | None = None,
    stop: threading.Event | None = None,
    state: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Report:
    """Serves the parameters of `net` until the workers are done; `net` then holds the trained parameters and buffers.

    Returns when each of the `world_size - 1` workers has finished, when none has been alive for `grace` seconds, or
    when none came within `join_timeout`. Without a world size it serves until `max_version`, until `stop` is set, or
    until interrupted (Ctrl-C: `net` is loaded, then KeyboardInterrupt goes on).

    Args:
        args: any object with attributes named like settings, each optional; or None.
        net: the model, with its initial weights.
        on_version: called with a ModelSnapshot each time `every` versions have passed, in a thread of its own.
        every: versions between two calls.
        listener: where workers come; by default gloo at `master`:`port`.
        stop: set it from another thread or a signal handler to end the run.
        state: where an earlier server ended, a Report's or a ModelSnapshot's; instead of the weights of `net`.
        settings: see dgs.config.Settings.

    Returns:
        A Report: the last version, and how each worker ended.

    Raises:
        ConfigError, LayoutError: the settings or the model cannot be served.
        PortInUseError: the port is taken.
    """
    resolved = config.resolve(args, **settings)
    _check(resolved, every)
    net = unwrapped(net)
    layout = layout_of(net, resolved)
    share_cores(resolved, server=True)
    device = _device(resolved)
    with torch.no_grad():
        theta = torch.cat([p.detach().float().reshape(-1).cpu() for _, p in trainable(net)])
    end = resolved.max_version
    parameters = ServerState(layout, theta, device=device, max_version=end, sampled=resolved.sampled)
    store = store_of(net, layout, resolved)
    if listener is None:
        run = config.agent_run(resolved)
        listener = GlooListener(resolved.master, resolved.port, address=resolved.address, agent_run=run)
    server = Server(parameters, store, resolved, listener, dense=METHODS[resolved.mode].dense, stop=stop)
    try:
        if state is not None:
            server.load_state_dict(state)
    except ConfigError:
        listener.close()
        raise
    try:
        with ExitStack() as stack:
            if on_version is not None:
                stack.enter_context(Evaluator(parameters, store, on_version, every, server.state_dict))
            log.info("serving %d parameters at %s:%d", layout.numel, resolved.master, resolved.port)
            report = server.serve()
    finally:  # after the last call of on_version, which may load into `net` too
        model_snapshot(parameters, store).load_into(net)
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


def _device(settings: Settings) -> torch.device:
    if settings.cuda and not torch.cuda.is_available():
        log.warning("no CUDA device for the server's parameters: they stay on the CPU")
    return torch.device("cuda" if settings.cuda and torch.cuda.is_available() else "cpu")
