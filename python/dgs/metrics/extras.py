# SPDX-License-Identifier: Apache-2.0
"""Packages that only those need who ask for what they do."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import ConfigError


def needed(module: str, setting: str, extra: str) -> Any:
    """The module; ConfigError, naming the extra that brings it, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{setting} needs what is not installed ({error}): pip install 'dgs[{extra}]'"
        ) from None
