# SPDX-License-Identifier: Apache-2.0
"""docs/plan.md and the README: what they say the command prints is what it prints."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

from dgs.plan import STATED, Cost, plan, text
from dgs.plan.__main__ import case, options
from dgs.transport.gloo import FIRST


def printed(page: str) -> tuple[str, str]:
    """What the first command of a page prints, and the block of text that follows it."""
    command, block = re.findall(
        r"^    python -m dgs\.plan (.*)$.*?^```text\n(.*?)\n```", page, re.DOTALL | re.MULTILINE
    )[0]
    return text(plan(case(options().parse_args(shlex.split(command)))), None), block


def test_the_page_shows_what_is_printed(repository: Path) -> None:
    said, block = printed((repository / "docs" / "plan.md").read_text(encoding="utf-8"))
    assert block.splitlines() == said.splitlines()


def test_the_readme_shows_what_is_printed(repository: Path) -> None:
    said, block = printed((repository / "README.md").read_text(encoding="utf-8"))
    assert len(block.splitlines()) == 2
    assert block in said


def test_the_constants_are_those_of_the_page(repository: Path) -> None:
    page = (repository / "docs" / "plan.md").read_text(encoding="utf-8")
    assert f"more than {FIRST >> 20} MiB, which is two messages" in page
    for field in fields(STATED):
        cost = getattr(STATED, field.name)
        if isinstance(cost, Cost):
            assert not cost.fixed or f"{1e3 * cost.fixed:g} ms" in page
            for each in (cost.per_parameter, cost.per_entry):
                assert not each or f"{1e9 * each:g} ns" in page, f"{field.name}: {each}"
