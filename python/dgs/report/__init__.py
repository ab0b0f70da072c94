# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page of one or several runs: python -m dgs.report RUN_DIR [RUN_DIR ...]."""

from __future__ import annotations

from collections.abc import Sequence

from .page import page
from .read import RunData, read
from .tables import overview


def table(runs: Sequence[RunData]) -> str:
    """The runs in Markdown, a line each: what was found, how fast, and what it sent."""
    return overview(runs).markdown()


__all__ = ["RunData", "page", "read", "table"]
