# SPDX-License-Identifier: Apache-2.0
"""One file of tensors, and JSON in its header: written beside its place, flushed to the disk, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from . import tree

_KEY = "dgs"  # of the JSON among the file's metadata


def save(path: str | os.PathLike[str], state: Any) -> None:
    """Writes `state` to one safetensors file: whoever reads `path` finds all of it, or what was there before.

    Args:
        path: the file; its folder must exist.
        state: numbers, strings, None and tensors, and lists, tuples and dicts of such (keys strings or int): the
            state_dict of a model, an optimizer or a scheduler, or several of them in a dict.

    Raises:
        ConfigError: `state` holds something else; nothing was written.
        CheckpointError: the file cannot be written; what was at `path` is there still.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            write(part, state)
            part.replace(path)
            sync(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def load(path: str | os.PathLike[str]) -> Any:
    """What `save` was given, its tensors on the CPU. Raises CheckpointError where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if described is None:
        raise CheckpointError(
            f"{path} holds tensors alone, and no state that dgs.checkpoint.save wrote: "
            "read it with safetensors.torch.load_file"
        )
    try:
        return tree.restore(json.loads(described), tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read: its description is damaged: {error!r}") from error


def write(path: Path, state: Any) -> None:
    """The file, on the disk when this returns. Raises OSError and ConfigError."""
    described, tensors = tree.flatten(state)
    write_tensors(path, tensors, {_KEY: json.dumps(described, allow_nan=False)})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """The same of tensors that `tree.apart` has made. Raises OSError."""
    try:
        save_file(dict(tensors), path, metadata)
    except SafetensorError as error:  # the disk is full, say
        raise OSError(str(error)) from error
    sync(path)


def sync(path: Path) -> None:
    """Returns when the file, or the names in the folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
