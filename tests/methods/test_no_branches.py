# SPDX-License-Identifier: Apache-2.0
"""A method is known by its object alone: nothing but the methods' own files compares with a method's name."""

from __future__ import annotations

import ast
from pathlib import Path

from dgs import MODES


def compared(tree: ast.AST) -> list[int]:
    """Lines where something is compared with, looked up by or matched to a method's name."""
    return [
        constant.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.Dict | ast.Subscript | ast.MatchValue)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and constant.value in set(MODES)
    ]


def test_comparisons_are_found() -> None:
    for code in ('if mode == "dgs": pass', 'x = {"gd": 1}[mode]', 'if mode in ("asgd", "gd"): pass'):
        assert compared(ast.parse(code))
    assert not compared(ast.parse('mode = "dgs"'))


def test_no_branch_on_a_methods_name(repository: Path) -> None:
    package = repository / "python" / "dgs"
    files = [path for path in sorted(package.rglob("*.py")) if path.parent.name != "methods"]
    assert len(files) > 30
    assert not [
        f"{path.relative_to(repository)}:{line}"
        for path in files
        for line in compared(ast.parse(path.read_text(encoding="utf-8")))
    ]
