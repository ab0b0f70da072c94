# SPDX-License-Identifier: Apache-2.0
"""Every error is one of the library's, a built-in kind as well, and explained in docs/errors.md."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from dgs import errors

NAMES = [name for name in errors.__all__ if name != "DGSError"]


@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_explained_where_its_kind_is_said(name: str, repository: Path) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.DGSError) and kind.__doc__
    page = (repository / "docs" / "errors.md").read_text()
    rows = [line for line in page.splitlines() if f"`{name}` (" in line]
    assert rows, f"docs/errors.md has no row for {name}"
    named = rows[0].split(f"`{name}` (", 1)[1].split(")", 1)[0]
    for base in named.replace("`", "").split(", "):
        expected = getattr(errors, base, None) or getattr(builtins, base)
        assert issubclass(kind, expected), f"the page says that {name} is a {base}"


def test_the_page_explains_nothing_that_is_gone(repository: Path) -> None:
    page = (repository / "docs" / "errors.md").read_text()
    first_cells = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| `")]
    found = {cell.split("`")[1] for cell in first_cells}
    assert found - set(NAMES) == set()
