# SPDX-License-Identifier: Apache-2.0
"""Arrows point one way: example, benchmarks, tests -> dgs -> dgs_ext -> compiled modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# folder -> what its Python may import of this repository
LAYERS = {
    "build_backend/dgs_build": {"dgs_build"},
    "dgs_ext": {"dgs_ext"},
    "python/dgs": {"dgs", "dgs_ext"},
    "example": {"dgs", "dgs_ext"},
    "benchmarks": {"dgs", "dgs_ext", "benchmarks"},
}
OURS = {"benchmarks", "dgs", "dgs_build", "dgs_ext", "example", "tests"}


def imports(path: Path, base: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute module) of each import in `path`, a module below `base`; those in functions too."""
    package = path.relative_to(base).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            for name in node.names:
                yield node.lineno, f"{module}.{name.name}"


def includes(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each #include, those of std in angle brackets."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*(<[^>]+>|"[^"]+")', line)
        if match:
            yield number, match[1].strip('"')


def headers_of(root: Path, folder: str) -> Iterator[tuple[str, str]]:
    """Yield (file:line, include) for everything in csrc/`folder`."""
    for path in sorted((root / "csrc" / folder).rglob("*")):
        if path.is_file():
            for line, name in includes(path):
                yield f"{path.relative_to(root)}:{line}", name


def test_imports_are_found_and_resolved(tmp_path: Path) -> None:
    module = tmp_path / "dgs" / "server" / "join.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "from . import state\nfrom .session import Session\nfrom .. import worker\nfrom ..layout import Layout\n"
        "def late():\n    import dgs_ext.ops\n"
    )
    assert {name for _, name in imports(module, tmp_path)} == {
        "dgs.server.state",
        "dgs.server.session.Session",
        "dgs.worker",
        "dgs.layout.Layout",
        "dgs_ext.ops",
    }


@pytest.mark.parametrize("folder", LAYERS)
def test_python_imports_only_from_the_layers_below(repository: Path, folder: str) -> None:
    wrong = [
        f"{path.relative_to(repository)}:{line} imports {module}"
        for path in sorted((repository / folder).rglob("*.py"))
        for line, module in imports(path, (repository / folder).parent)
        if module.split(".")[0] in OURS - LAYERS[folder]
    ]
    assert not wrong


def package_imports(repository: Path, part: str) -> Iterator[tuple[str, str]]:
    """Yield (file:line, module) for python/dgs/`part`.py or the package of that name."""
    base = repository / "python" / "dgs"
    files = [base / f"{part}.py", *sorted((base / part).rglob("*.py"))]
    for path in files:
        if path.exists():
            for line, module in imports(path, base.parent):
                yield f"{path.relative_to(repository)}:{line}", module


@pytest.mark.parametrize(("part", "other"), [("server", "worker"), ("worker", "server")])
def test_server_and_worker_share_only_the_protocol(repository: Path, part: str, other: str) -> None:
    found = list(package_imports(repository, part))
    assert found, f"python/dgs/{part} is gone: this test looks at nothing"
    forbidden = re.compile(rf"dgs\.({other}|optimizer)(\.|$)")
    assert not [place for place, module in found if forbidden.match(module)]


def test_wire_sees_only_std(repository: Path) -> None:
    found = list(headers_of(repository, "wire"))
    assert found
    wrong = [
        f"{place}: {name}"
        for place, name in found
        if not (name.startswith("wire/") or re.fullmatch(r"<[a-z0-9_]+>", name))
    ]
    assert not wrong


@pytest.mark.parametrize("folder", ["cpu", "cuda", "common"])
def test_backends_do_not_see_each_other(repository: Path, folder: str) -> None:
    found = list(headers_of(repository, folder))
    assert found
    others = tuple(f"{other}/" for other in ("cpu", "cuda", "wire") if other != folder)
    assert not [f"{place}: {name}" for place, name in found if name.startswith(others)]


@pytest.mark.parametrize("folder", ["cpu", "cuda", "common", "."])
def test_torch_is_seen_only_through_its_stable_abi(repository: Path, folder: str) -> None:
    allowed = ("torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/c/shim")
    foreign = ("<torch/", "<ATen/", "<c10/", "torch/", "ATen/", "c10/")
    wrong = [
        f"{place}: {name}"
        for place, name in headers_of(repository, folder)
        if name.startswith(foreign) and not name.strip("<>").startswith(allowed)
    ]
    assert not wrong


def test_no_module_but_the_loader_knows_the_compiled_files(repository: Path) -> None:
    """python/dgs goes through the typed wrappers: it names neither torch.ops nor the compiled modules."""
    pattern = re.compile(r"torch\.ops\b|dgs_ext\._|from dgs_ext import _")
    wrong = [
        f"{path.relative_to(repository)}:{number}"
        for path in sorted((repository / "python" / "dgs").rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not wrong
