# SPDX-License-Identifier: Apache-2.0
"""Tables of figures in a page of docs/, between the two marks that the page has for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]


def line(cells: Iterable[object]) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |\n"


def head(columns: Sequence[str]) -> str:
    """The first two rows of a table; all columns but the first hold numbers."""
    return line(columns) + "|---|" + "---:|" * (len(columns) - 1) + "\n"


def loads(machine: dict[str, Any]) -> str:
    """How busy the machine was, in words."""
    return f"load {machine['load']:.1f} at the beginning and {machine['load at the end']:.1f} at the end"


def write(page: Path, figures: str, text: str) -> None:
    """Puts `text` between <!-- figures --> and <!-- end of figures -->.

    Raises SystemExit when the page has no such marks.
    """
    first, last = f"<!-- {figures} -->", f"<!-- end of {figures} -->"
    before, begin, rest = page.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise SystemExit(f"{page} has no {first} and {last} to write the tables between")
    page.write_text(f"{before}{first}\n{text}{last}{after}", encoding="utf-8")
