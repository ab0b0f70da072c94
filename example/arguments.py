# SPDX-License-Identifier: Apache-2.0
"""The library's settings as options of a command, for the examples that offer them all."""

from __future__ import annotations

import argparse

from dgs import options


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds --mode, --rank, --world-size, --density, --codec, --run-dir and so on; the progress is shown."""
    options.add_settings(parser)
    parser.set_defaults(progress=True)
