# SPDX-License-Identifier: Apache-2.0
"""What an axis shows, and where a value lies on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

Write = Callable[[float], str]
_UNITS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))


def short(value: float) -> str:
    """A number of an axis."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"


def byte_count(value: float) -> str:
    """Bytes on an axis."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= limit:
            return f"{value / limit:.4g} {unit}"
    return f"{value:.4g} B"


def per_cent(value: float) -> str:
    """A part of a whole on an axis."""
    return f"{100 * value:.4g}%"


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis before its values are known.

    Args:
        title: what is shown.
        write: how its numbers are written.
        log: logarithmic, which shows positive values only.
        wide: logarithmic where positive values span more than this factor.
        zero: begins at 0, if it is not logarithmic and no value is below.
        time: of seconds, shown in the unit that suits the span.
        whole: counts, which have no marks between them.
    """

    title: str
    write: Write = short
    log: bool = False
    wide: float = math.inf
    zero: bool = True
    time: bool = False
    whole: bool = False

    def shows(self, value: float) -> bool:
        return value > 0 or not self.log

    def over(self, values: Sequence[float], begin: float, end: float) -> Scale:
        """The axis from `begin` to `end` of the figure, with room for `values`."""
        low, high = min(values), max(values)
        axis, unit = self, 1.0
        if low > 0 and high > self.wide * low:
            axis = replace(axis, log=True)
        if axis.log:
            low *= 0.95
        elif axis.zero and low >= 0:
            low = 0.0
        if axis.time:
            unit, name = next(((u, n) for u, n in _UNITS if high >= 3 * u), (1.0, "s"))
            axis = replace(axis, title=f"{self.title} ({name})")
        return Scale(axis, low, high if high > low else low + (abs(low) or 1.0), begin, end, unit)


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis of known values: call it for a value's place."""

    axis: Axis
    low: float
    high: float
    begin: float
    end: float
    unit: float = 1.0

    def __call__(self, value: float) -> float:
        scaled: Callable[[float], float] = math.log10 if self.axis.log else float
        low, high = scaled(self.low), scaled(self.high)
        return self.begin + (scaled(value) - low) / (high - low) * (self.end - self.begin)

    @property
    def title(self) -> str:
        return self.axis.title

    def write(self, value: float) -> str:
        return self.axis.write(value / self.unit)

    def marks(self) -> list[tuple[float, str]]:
        """Places of some round numbers, and how they are written."""
        low, high = self.low / self.unit, self.high / self.unit
        found = decades(low, high) if self.axis.log else ticks(low, high, 1.0 if self.axis.whole else 0.0)
        return [(self(value * self.unit), self.axis.write(value)) for value in found]


def ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Some five round numbers, at least `least` apart."""
    raw = max((high - low) / 5, least)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= raw * (1 - 1e-9))
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten; where they are few, twice and five times them too."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = [10.0**p for p in powers if low <= 10.0**p <= high]
    many = [n * 10.0**p for p in powers for n in (1, 2, 5) if low <= n * 10.0**p <= high]
    return few[:: -(-len(few) // 6)] if len(few) > 2 else many
