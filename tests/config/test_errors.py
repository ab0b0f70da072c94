# SPDX-License-Identifier: Apache-2.0
"""Every error is one of the library's, a built-in kind as well, and explained in docs/errors.md."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import dgs
import dgs_ext
from dgs import errors

NAMES = [name for name in errors.__all__ if name != "DGSError"]


def exceptions(package: ModuleType) -> set[type]:
    """The exception classes that any module of a package defines."""
    found: set[type] = set()
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        spec = importlib.util.find_spec(info.name)
        if info.name.endswith("__main__") or spec is None or not str(spec.origin).endswith(".py"):
            continue
        module = importlib.import_module(info.name)
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__ == info.name:
                found.add(kind)
    return found


@pytest.mark.parametrize("package", [dgs, dgs_ext], ids=lambda package: package.__name__)
def test_no_module_has_errors_of_its_own(package: ModuleType) -> None:
    found = exceptions(package)
    assert found, "the search finds nothing"
    assert {kind.__name__ for kind in found} <= set(errors.__all__)


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
