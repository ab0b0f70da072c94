# SPDX-License-Identifier: Apache-2.0
"""The settings as options of a command line."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import Field, fields
from typing import Any

from .config import Settings, resolve
from .errors import ConfigError

# What a server does not read: it is a worker's own, or told by the worker with each push.
WORKERS_OWN = frozenset({
    "rank", "clip", "clip_workers", "nesterov", "dampening", "maximize",
    "decoupled_weight_decay", "buffers_every", "exchange_every", "overlap", "flush", "connect_timeout",
    "rejoin_timeout", "on_drift", "on_nonfinite",
})  # fmt: skip


def add_settings(
    parser: argparse.ArgumentParser, *, without: Collection[str] = (), **short: str
) -> argparse._ArgumentGroup:
    """Adds an option for each setting: --mode, --world-size, --checkpoint-dir and so on; the parsed `args` has them.

    One that is not given is None: the environment and the default decide.

    Args:
        parser: of the command.
        without: settings that are left out.
        short: a second name for an option, by setting: keep="checkpoint_keep" adds --keep.

    Returns:
        The group that holds them.
    """
    group = parser.add_argument_group("settings of the library")
    names = {setting: name for name, setting in short.items()}
    if "density" not in without:
        group.add_argument("--sparsity", help="1 - density")
    for setting in fields(Settings):
        if setting.name in without:
            continue
        flags = [f"--{name.replace('_', '-')}" for name in (setting.name, names.get(setting.name)) if name]
        kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if setting.type == "bool" else {}
        group.add_argument(*flags, help=_help(setting), default=None, **kind)
    return group


def _help(setting: Field[Any]) -> str:
    """The setting's line, with its default where that is neither None, of which the line itself speaks, nor off."""
    text: str = setting.metadata["doc"].replace("%", "%%")
    default = setting.default
    if default is None or isinstance(default, bool):
        return text
    return f"{text} (default: {default:g})" if isinstance(default, float) else f"{text} (default: {default})"


def settings_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Settings:
    """The settings that `args`, the environment and the defaults give; a wrong one ends the command in a line.

    Args:
        parser: of the command, for its usage.
        args: what it has parsed.

    Returns:
        The settings.
    """
    try:
        return resolve(args)
    except ConfigError as error:
        parser.error(str(error))
