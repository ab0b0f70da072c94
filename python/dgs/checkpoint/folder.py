# SPDX-License-Identifier: Apache-2.0
"""A folder of checkpoints, of which the last few are kept; each is a folder of its own.

    000007-version-1200/model.safetensors     the model, by the names of its state_dict
    000007-version-1200/server.safetensors    what the server knows besides
    000007-version-1200/checkpoint.json       what it is of, and length and hash of the other two
    latest -> 000007-version-1200

Names that begin with a dot are being written or removed, and belong to nobody once their process has ended.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dgs_ext import wire

from ..errors import CheckpointError
from . import files, tree

log = logging.getLogger(__name__)

MODEL, SERVER, ABOUT = "model.safetensors", "server.safetensors", "checkpoint.json"
LATEST = "latest"
FORMAT = 1

_NAME = re.compile(r"(\d{6,})-version-\d+")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that was found whole.

    `model` is by the names of the model's state_dict, `server` what the writer gave, `about` the JSON.
    """

    path: Path
    about: dict[str, Any]
    model: dict[str, Tensor]
    server: Any


class Checkpoints:
    """The checkpoints in `folder`, made if need be; one process may write there at a time.

    Args:
        folder: their folder.
        keep: how many stay.
    """

    def __init__(self, folder: str | Path, keep: int = 3) -> None:
        self.folder, self._keep = Path(folder), keep

    def found(self) -> list[Path]:
        """All, the oldest first."""
        if not self.folder.is_dir():
            return []
        numbered = [(_number(path), path) for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return [path for _, path in sorted(numbered)]

    def write(self, version: int, model: Mapping[str, Tensor], server: Any, about: Mapping[str, Any]) -> Path:
        """Writes one, points `latest` at it and removes those that are too many.

        Raises CheckpointError, and leaves those before as they were, when it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clean()
            before = self.found()
            number = _number(before[-1]) + 1 if before else 1
            path = self.folder / f"{number:06d}-version-{version}"
            part = self.folder / f".{path.name}"
            part.mkdir()
            _fill(part, model, server, {"format": FORMAT, "version": version, **about})
            part.rename(path)
            files.sync(self.folder)
            self._point_at(path)
            for old in before[: max(0, len(before) + 1 - self._keep)]:
                self._remove(old)
        except OSError as error:
            raise CheckpointError(f"no checkpoint can be written to {self.folder}: {error}") from error
        return path

    def newest(self) -> Checkpoint | None:
        """The last that is whole, None where there is none at all; each that is damaged is a warning.

        Raises CheckpointError when all are damaged.
        """
        found = self.found()
        for path in reversed(found):
            try:
                return read(path)
            except CheckpointError as error:
                log.warning("%s; the one before it is taken", error)
        if found:
            raise CheckpointError(f"of the {len(found)} checkpoints in {self.folder} none can be read")
        return None

    def _point_at(self, path: Path) -> None:
        link = self.folder / f".{LATEST}"
        try:
            link.symlink_to(path.name)
            link.replace(self.folder / LATEST)
        except OSError as error:  # some shared filesystems have no links; the numbers say the order too
            log.warning("%s/%s could not be made: %s", self.folder, LATEST, error)

    def _remove(self, path: Path) -> None:
        """First out of sight, so that none is ever seen that lacks a file."""
        hidden = path.rename(path.with_name(f".{path.name}"))
        shutil.rmtree(hidden)

    def _clean(self) -> None:
        """Removes what a writer that was killed has left."""
        for path in self.folder.iterdir():
            if path.name == f".{LATEST}":
                path.unlink()
            elif _NAME.fullmatch(path.name.removeprefix(".")) and path.name.startswith("."):
                shutil.rmtree(path)


def read(path: Path) -> Checkpoint:
    """The checkpoint in the folder `path`. Raises CheckpointError where something is missing or altered."""
    try:
        about = json.loads((path / ABOUT).read_text())
        if about.get("format") != FORMAT:
            raise CheckpointError(
                f"checkpoint {path} has format {about.get('format')}, and this release reads {FORMAT}"
            )
        for name, sum_ in about["files"].items():
            if _sum(path / name) != sum_:
                raise CheckpointError(f"checkpoint {path} is damaged: {name} is not what was written")
        return Checkpoint(path, about, load_file(path / MODEL), files.load(path / SERVER))
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error!r}") from error


def _fill(folder: Path, model: Mapping[str, Tensor], server: Any, about: dict[str, Any]) -> None:
    files.write_tensors(folder / MODEL, tree.apart(model))
    files.write(folder / SERVER, server)
    sums = {name: _sum(folder / name) for name in (MODEL, SERVER)}
    described = json.dumps(about | {"files": sums}, indent=1, ensure_ascii=False)
    (folder / ABOUT).write_text(described + "\n")
    files.sync(folder / ABOUT)
    files.sync(folder)


def _sum(path: Path) -> dict[str, Any]:
    data = torch.from_numpy(np.memmap(path, np.uint8, mode="c"))
    return {"bytes": data.numel(), "xxh64": f"{wire.xxh64(data):016x}"}


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])
