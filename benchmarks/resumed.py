# SPDX-License-Identifier: Apache-2.0
"""Rows of finished runs in a file, by key, so that a benchmark that was ended goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Rows:
    """A line of JSON for each; one that was cut off when the last command was ended counts as none."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._known = path, {}
        whole = [
            line for line in (path.read_text().splitlines() if path.exists() else ()) if line.endswith("}")
        ]
        for line in whole:
            row = json.loads(line)
            self._known[row.pop("key")] = row
        path.write_text("".join(f"{line}\n" for line in whole))

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Row:
        return self._known[key]

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Writes a finished run down at once."""
        self._known[key] = dict(row)
        with self._path.open("a") as file:
            file.write(json.dumps({"key": key, **row}) + "\n")
