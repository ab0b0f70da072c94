# SPDX-License-Identifier: Apache-2.0
"""The processes that a process has started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def children(parent: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Pid and environment of each that runs."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                yield int(folder.name), dict(v.split("=", 1) for v in variables if "=" in v)
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
