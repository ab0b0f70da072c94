# SPDX-License-Identifier: Apache-2.0
"""The model that a stand-alone server holds: made by a function that is named, or taken from a checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoint import Checkpoint, Checkpoints, Names, skeleton
from ..checkpoint.folder import read
from ..config import Settings
from ..errors import ConfigError


def load_model(name: str | None, arguments: Mapping[str, Any], settings: Settings) -> nn.Module:
    """The model to serve.

    Args:
        name: "module:callable", what makes it, or "module:name", what it is; or the folder of a checkpoint, whose
            weights a new run begins with; or None: the model of the run that `settings` go on with.
        arguments: keywords for the callable.
        settings: the server's.

    Raises:
        ConfigError: there is no such thing, or no model in it.
        CheckpointError: the checkpoint cannot be read.
    """
    if name is None:
        return _of(_newest(settings))
    module, colon, attribute = name.partition(":")
    if not colon:
        if not Path(name).is_dir():
            raise ConfigError(f"model must be module:callable, or the folder of a checkpoint, got {name!r}")
        return _of(read(Path(name)))
    net = _found(module, attribute)
    if not isinstance(net, nn.Module):
        net = _made(name, net, arguments)
    if not isinstance(net, nn.Module):
        raise ConfigError(f"model {name} must make a torch.nn.Module, and made a {type(net).__name__}")
    return net


def _found(module: str, attribute: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ModuleNotFoundError, AttributeError, TypeError, ValueError) as error:  # the last two: no module's name
        if isinstance(error, ModuleNotFoundError) and error.name not in (module, module.partition(".")[0]):
            raise  # the module is there, and lacks one itself
        raise ConfigError(
            f"model {module}:{attribute} is not there: {error} (modules are looked for in this folder, too)"
        ) from None
    if not callable(found):
        raise ConfigError(
            f"model {module}:{attribute} must be a callable or a module, is a {type(found).__name__}"
        )
    return found


def _made(name: str, make: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return make(**arguments)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # of its own code
        raise ConfigError(f"model {name} cannot be called with {dict(arguments)}: {error}") from None


def _newest(settings: Settings) -> Checkpoint:
    folder = settings.checkpoint_dir
    if folder is None or not settings.checkpoint_resume:
        raise ConfigError("name a model (module:callable), or a --checkpoint-dir that holds one with --resume")
    newest = Checkpoints(folder).newest()
    if newest is None:
        raise ConfigError(f"no model is named, and {folder} holds no checkpoint to take it from")
    return newest


def _of(checkpoint: Checkpoint) -> nn.Module:
    return skeleton(Names(**checkpoint.about["names"]), checkpoint.model)
