# SPDX-License-Identifier: Apache-2.0
"""A server's checkpoints: one every so many seconds and one at the end, and the one to go on from."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import torch

from .. import buffers as module_buffers
from ..buffers import BufferStore
from ..checkpoint import Checkpoint, Checkpoints, Names
from ..config import Settings
from ..errors import CheckpointError, ConfigError
from ..layout import Layout
from .evaluation import named

log = logging.getLogger(__name__)


class Keeper:
    """A thread that writes checkpoints as long as the block lasts; the last one is written at its end.

    Between, a checkpoint holds of the workers only those that paused: one that trains is elsewhere when it comes
    back, and is sent a snapshot. The last one holds all.

    Args:
        folder: where they go.
        state_dict: the server's.
        layout, names: of its model.
        settings: the server's.
    """

    def __init__(
        self,
        folder: Checkpoints,
        state_dict: Callable[..., dict[str, Any]],
        layout: Layout,
        names: Names,
        settings: Settings,
    ) -> None:
        self._folder, self._state_dict = folder, state_dict
        self._layout, self._names, self._settings = layout, names, settings
        self._written = -1  # the version of the last
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dgs-checkpoints", daemon=True)

    def __enter__(self) -> Keeper:
        """Writes the first, so that a folder that cannot be written is an error before anyone trains."""
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises CheckpointError when the last cannot be written and nothing else is under way."""
        self._ended.set()
        self._thread.join()
        try:
            self._write()
        except CheckpointError as failed:
            if kind is None:
                raise
            log.error("the last checkpoint is not there: %s", failed)

    def _run(self) -> None:
        while not self._ended.wait(self._settings.checkpoint_every):
            try:
                self._write(live=False)
            except CheckpointError as error:
                log.error("%s; training goes on", error)
            except Exception:
                log.exception("an error in the server kept it from writing a checkpoint; training goes on")

    def _write(self, *, live: bool = True) -> None:
        began = time.monotonic()
        state = self._state_dict(live=live)
        version = int(state["version"])
        if not live and version == self._written:
            return
        model, server = _split(state, self._layout, self._settings.buffers)
        about = {
            "saved": datetime.now(UTC).isoformat(timespec="seconds"),
            "mode": self._settings.mode,
            "fingerprint": state["fingerprint"],
            "names": asdict(self._names),
        }
        path = self._folder.write(version, self._names.saved(model), server, about)
        self._written = version
        log.info("checkpoint %s written in %.1f s", path, time.monotonic() - began)


def folder_of(settings: Settings) -> Checkpoints | None:
    """Where the settings say that checkpoints go."""
    if settings.checkpoint_dir is None:
        return None
    return Checkpoints(settings.checkpoint_dir, settings.checkpoint_keep)


def resumed(folder: Checkpoints, layout: Layout, settings: Settings) -> dict[str, Any] | None:
    """The state of the last checkpoint, for load_state_dict; None where there is none.

    Raises ConfigError where there is one, and going on from it was not asked for or it is of another model.
    """
    found = folder.found()
    if found and not settings.checkpoint_resume:
        raise ConfigError(
            f"checkpoint_dir {folder.folder} holds the checkpoints of a run ({found[-1].name}): set "
            "checkpoint_resume to go on from there, or name another folder"
        )
    last = folder.newest() if found else None
    if last is None:
        return None
    if last.about["fingerprint"] != f"{layout.fingerprint:016x}":
        shapes = [(name, list(last.model[name].shape)) for name in last.about["names"]["trained"]]
        difference = layout.difference(shapes) or "its buffers or frozen parameters differ"
        raise ConfigError(f"checkpoint {last.path} is of another model: {difference}")
    log.info("going on from %s", last.path)
    return _joined(last, layout, settings)


def _split(state: Mapping[str, Any], layout: Layout, policy: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A server's state as its model, by name, and what there is besides."""
    store = BufferStore(layout.buffers, {}, policy)
    store.load_state_dict(state["buffers"])
    model = {
        **named(layout, state["theta"]),
        **module_buffers.unpack(store.frozen, layout.frozen),
        **store.current(),
    }
    rest = {name: part for name, part in state.items() if name != "theta"}
    rest["buffers"] = {name: part for name, part in state["buffers"].items() if name != "frozen"}
    return model, rest


def _joined(last: Checkpoint, layout: Layout, settings: Settings) -> dict[str, Any]:
    values = Names(**last.about["names"]).values(last.model)
    theta = torch.cat([values[s.name].reshape(-1) for s in layout.segments])
    frozen = module_buffers.pack(values, layout.frozen)
    same = last.about["mode"] == settings.mode  # workers that pause hold what their method needs
    workers = last.server["workers"] if same else {}
    buffers = last.server["buffers"] | {"frozen": frozen}
    return {**last.server, "theta": theta, "workers": workers, "buffers": buffers}
