# SPDX-License-Identifier: Apache-2.0
"""The settings as options of a command line."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from .config import Settings

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
        group.add_argument(*flags, help=setting.metadata["doc"].replace("%", "%%"), default=None, **kind)
    return group
