# SPDX-License-Identifier: Apache-2.0
"""Calls the user's function with the server's model while pushes go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from .. import buffers as module_buffers
from ..buffers import BufferStore
from ..errors import ConfigError
from ..layout import Layout
from .state import ServerState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """The server's model at a version: parameters (float32) and buffers by name, on the CPU."""

    version: int
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    state: Callable[[], dict[str, Any]] | None = field(default=None, repr=False, compare=False)

    def server_state(self) -> dict[str, Any]:
        """The server's state_dict now, for `init_server(…, state=)`; its version may have gone on.

        Raises ConfigError where no server is running: a snapshot of a simulation, or of a run that has ended.
        """
        if self.state is None:
            raise ConfigError("server_state: there is no server; in a run's end take the Report's state")
        return self.state()

    def load_into(self, model: nn.Module) -> None:
        """Copies parameters and buffers into `model`."""
        module_buffers.load(model, {**self.parameters, **self.buffers})


OnVersion = Callable[[ModelSnapshot], Mapping[str, float] | None]


def model_snapshot(state: ServerState, buffers: BufferStore) -> ModelSnapshot:
    """The server's model now."""
    taken = state.snapshot()
    frozen = module_buffers.unpack(buffers.frozen, state.layout.frozen)
    return ModelSnapshot(taken.version, named(state.layout, taken.theta) | frozen, buffers.current())


def named(layout: Layout, flat: Tensor) -> dict[str, Tensor]:
    """The parameters in a flat vector, by name."""
    return {s.name: flat[s.offset : s.offset + s.numel].view(s.shape) for s in layout.segments}


class Evaluator:
    """A thread that calls `function` each time `every` versions have passed, and at the end; a slow one skips some.

    In a run with a `max_version` that version is seen after the goodbyes, which bring the last batch-norm statistics.

    Args:
        state, buffers: the server's.
        function: takes the snapshot.
        every: versions between two calls; the last version is seen as well.
        state_dict: what the snapshot's `server_state` calls.
    """

    def __init__(
        self,
        state: ServerState,
        buffers: BufferStore,
        function: OnVersion,
        every: int,
        state_dict: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self._state, self._buffers, self._function, self._every = state, buffers, function, every
        self._state_dict = state_dict
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dgs-on-version", daemon=True)

    def __enter__(self) -> Evaluator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        seen, due = self._state.version, self._every
        while True:
            ended = self._ended.is_set()  # asked first, so that the last version is still seen
            version = self._state.wait_beyond(due - 1, timeout=0 if ended else 0.2)
            if ended and version == seen:
                return
            if not ended and self._state.done:
                self._ended.wait()
                continue
            if not ended and version < due:
                continue
            snapshot = replace(model_snapshot(self._state, self._buffers), state=self._state_dict)
            if not ended and snapshot.version == self._state.max_version:
                continue  # it came since the look
            seen = snapshot.version
            due = snapshot.version - snapshot.version % self._every + self._every
            try:
                self._function(snapshot)
            except Exception:
                log.exception("on_version failed at version %d; training goes on", snapshot.version)
