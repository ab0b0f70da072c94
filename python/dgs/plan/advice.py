# SPDX-License-Identifier: Apache-2.0
"""Which row to take, up to which bandwidth it is the better one, and whether it pays at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .rows import ALL_REDUCE, Case, Row, exchanged, reduced

DENSITIES = (0.001, 0.01, 0.05)
SPARSE_CODECS = ("float32", "bfloat16", "int8")
DENSE_CODECS = ("float32", "bfloat16")
_ALIKE = 0.9  # of the fastest rate: between rows as fast as this the one that loses least is taken
_WORTH = 1.2  # times dense all-reduce's rate: below it what asynchrony costs may be more
_LOWEST, _HIGHEST, _PER_DECADE = 1e4, 1e13, 4  # bits per second between which the break-even is looked for


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows to choose from, and the choice.

    Args:
        rows: dense all-reduce, asynchronous dense, dgs.
        best: the asynchronous row to take: of those within 10 % of the fastest the densest one.
        dense: the fastest dense all-reduce.
        break_even: bits per second above which `dense` is faster than `best`; 0: at any bandwidth, inf: at none.
    """

    case: Case
    rows: tuple[Row, ...]
    best: Row
    dense: Row
    break_even: float

    @property
    def gain(self) -> float:
        """The rate of `best` in units of that of `dense`."""
        return self.best.rate / self.dense.rate

    @property
    def worth(self) -> str:
        """Whether the library pays: "yes", "hardly" (under 20 % faster: staleness may cost more) or "no"."""
        return "yes" if self.gain >= _WORTH else "hardly" if self.gain > 1 else "no"

    @property
    def recommended(self) -> Row:
        """The row to take: an asynchronous one only where that is worth it."""
        return self.best if self.worth == "yes" else self.dense


def plan(
    case: Case,
    *,
    densities: Sequence[float] = DENSITIES,
    codecs: Sequence[str] = SPARSE_CODECS,
    dense_codecs: Sequence[str] = DENSE_CODECS,
) -> Plan:
    """Compares dense all-reduce, asynchronous dense, and dgs at each density and codec.

    Raises:
        ConfigError: a density or codec that is none, or that a method does not take.
    """
    rows = [reduced(case, codec) for codec in dense_codecs]
    rows += [exchanged(case, "asgd", 1.0, codec) for codec in dense_codecs]
    rows += [exchanged(case, "dgs", density, codec) for density in densities for codec in codecs]
    dense = max((row for row in rows if row.method == ALL_REDUCE), key=lambda row: row.rate)
    best = _choice([row for row in rows if row.method != ALL_REDUCE], dense.rate)
    return Plan(case, tuple(rows), best, dense, break_even(case, best, dense))


def _choice(rows: Sequence[Row], dense: float) -> Row:
    """Of the rows about as fast as the fastest: a sparse method rather than asgd, the densest, the widest codec.

    None that is under 20 % faster than `dense` where another is not.
    """
    fastest = max(row.rate for row in rows)
    least = max(_ALIKE * fastest, min(fastest, _WORTH * dense))
    alike = [row for row in rows if row.rate >= least]
    return max(alike, key=lambda row: (row.sparse, row.density, row.bytes_up))


def rates_at(case: Case, best: Row, dense: Row, bandwidth: float) -> tuple[float, float]:
    """Gradients a second of the two rows' settings at another bandwidth of every link."""
    there = replace(case, link=case.link.scaled(bandwidth))
    return exchanged(there, best.method, best.density, best.codec).rate, reduced(there, dense.codec).rate


def break_even(case: Case, best: Row, dense: Row) -> float:
    """Bits per second above which `dense` is at least as fast as `best`; 0: it is so at any, inf: at none."""

    def gain(exponent: float) -> float:
        asynchronous, synchronous = rates_at(case, best, dense, 10**exponent)
        return asynchronous / synchronous - 1

    low, high = math.log10(_LOWEST), math.log10(_HIGHEST)
    if gain(high) > 0:
        return math.inf
    while high > low and gain(high - 1 / _PER_DECADE) <= 0:
        high -= 1 / _PER_DECADE
    if high <= low:
        return 0.0
    low = high - 1 / _PER_DECADE
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle) > 0 else (low, middle)
    return float(10**high)
