# SPDX-License-Identifier: Apache-2.0
"""The library's settings as options of a command, for the examples that offer them all."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

import dgs


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each of dgs.Settings: --mode, --rank, --world-size, --density, --codec, --run-dir and so on.

    One that is not given is None: the environment and the library's default decide. But progress is shown.
    """
    settings = parser.add_argument_group("settings of the library")
    settings.add_argument("--sparsity", help="1 - density")
    for setting in fields(dgs.Settings):
        kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if setting.type == "bool" else {}
        settings.add_argument(f"--{setting.name.replace('_', '-')}", help=setting.metadata["doc"], **kind)
    parser.set_defaults(progress=True)
