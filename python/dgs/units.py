# SPDX-License-Identifier: Apache-2.0
"""Rates and times as people write them: 1gbit, 100mbit, 0.2ms."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import ConfigError

_RATES = {"gbit": 1e9, "mbit": 1e6, "kbit": 1e3, "bit": 1.0, "": 1.0}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "": 1.0}


def rate(text: str) -> float:
    """Bits per second."""
    return _number(text, _RATES, "a rate", "1gbit, 100mbit or bits per second")


def seconds(text: str) -> float:
    """Seconds."""
    return _number(text, _TIMES, "a time", "0.2ms, 50us or seconds")


def _number(text: str, units: Mapping[str, float], what: str, like: str) -> float:
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?|inf) ?([a-z]*)", text.strip().lower())
    if match is None or match[2] not in units:
        raise ConfigError(f"{what} must be like {like}, got {text!r}")
    try:
        return float(match[1]) * units[match[2]]
    except ValueError:
        raise ConfigError(f"{what} must be like {like}, got {text!r}") from None


def bits(rate: float) -> str:
    """Bits per second as people read them."""
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.3g} bit/s"
