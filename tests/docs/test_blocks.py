# SPDX-License-Identifier: Apache-2.0
"""Every code block of README, CONTRIBUTING and docs/ is run, parsed or named below with a reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from blocks import Block, blocks, commands
from shell import ROOT, check
from stages import STAGES

BLOCKS = blocks(ROOT)

ELSEWHERE = {  # pages whose Python blocks a test of their own runs
    "docs/deployment.md": "tests/docs/test_deployment.py",
    "docs/extending.md": "tests/methods/test_extending.py",
    "docs/simulation.md": "tests/simulate/test_page.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
}
OTHERS = {("docs/deployment.md", "ini"), ("docs/deployment.md", "yaml")}  # read by tests/docs/test_deployment.py
EXPLAINED = {  # (page, how the block begins): what it is
    ("README.md", "Recommended: dgs"): "what a command prints, checked by tests/plan/test_page.py",
    ("README.md", "worker"): "a drawing",
    ("docs/architecture.md", "worker k"): "a drawing",
    ("docs/extending.md", "r = r + η·g"): "equations",
    ("docs/extending.md", "optimizer = dgs"): "a call that tests/methods/test_extending.py makes",
    ("docs/how_it_works.md", "v = u - (1-m)·q"): "an equation",
    ("docs/methods.md", "g = fl("): "equations",
    ("docs/methods.md", "push:"): "equations",
    ("docs/metrics.md", "dgs  "): "the bar of a run, whose form tests/metrics/test_parts.py checks",
    ("docs/plan.md", "11,689,512 parameters"): "what a command prints, checked by tests/plan/test_page.py",
    ("docs/wire_format.md", "00  44 47 53 46"): "a frame, checked by tests/wire/test_reference.py",
}


def explained(block: Block) -> str | None:
    """The reason against running a block, if there is one."""
    for (page, start), why in EXPLAINED.items():
        if block.page == page and block.first.startswith(start):
            return why
    return None


def test_every_block_is_run_or_explained() -> None:
    unknown = [
        f"{block}: {block.first!r}"
        for block in BLOCKS
        if not explained(block)
        and not block.language.startswith(
            "{"
        )  # a directive: Sphinx runs it, and `make docs` fails on its errors
        and block.language not in ("python", "sh")
        and (block.page, block.language) not in OTHERS
    ]
    assert not unknown, "mark them ```python or ```sh, or say in EXPLAINED what they are"


def test_what_is_explained_is_there() -> None:
    for page, start in EXPLAINED:
        assert any(b.page == page and b.first.startswith(start) for b in BLOCKS), f"{page} has no {start!r}"
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not read {page}"


@pytest.mark.parametrize("page", sorted({b.page for b in BLOCKS if b.language == "python"} - set(ELSEWHERE)))
def test_python_blocks_run(
    page: str, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the surroundings that stages.py gives the page, else one after another by themselves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setenv("WORLD_SIZE", "2")
    code = [b.text for b in BLOCKS if b.page == page and b.language == "python" and not explained(b)]
    if page in STAGES:
        STAGES[page](code)
        return
    names: dict[str, object] = {}
    for text in code:
        exec(compile(text, page, "exec"), names)


SHELL = [b for b in BLOCKS if b.language == "sh" and not explained(b)]


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_command_lines_are_taken(block: Block, tmp_path: Path) -> None:
    """By the programs that they name, parser and all; scripts that a page has its reader write are at hand."""
    for other in BLOCKS:
        if other.page == block.page and other.language == "python" and other.first.startswith("# "):
            name = other.first.removeprefix("# ").strip()
            if name.endswith(".py"):
                (tmp_path / name).write_text(other.text, encoding="utf-8")
    for command in commands(block.text):
        check(command, [tmp_path, ROOT])


def test_python_blocks_of_other_tests_compile() -> None:
    for block in BLOCKS:
        if block.language == "python" and not explained(block):
            ast.parse(block.text)


def test_every_page_is_in_the_table_of_contents() -> None:
    """Beside the page that holds it; without this a page would be found only by `make docs`."""
    listed = {
        line.strip()
        for block in BLOCKS
        if block.page == "docs/index.md" and block.language == "{toctree}"
        for line in block.text.splitlines()
    }
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages - listed == set()
    assert {name for name in listed if name and not name.startswith(":")} == pages
