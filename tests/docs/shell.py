# SPDX-License-Identifier: Apache-2.0
"""Checks a command line without running it: the program that it names has to take those arguments."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import itertools
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.run as torchrun

from dgs.launch import __main__ as launcher

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_ENDS = {"&&", "||", "|", ";", "&"}
_OMITTED = re.compile(r"…|\.\.\.")


class Parsed(Exception):
    """The program took its arguments."""


def check(command: str, places: list[Path]) -> None:
    """Fail unless each program in `command` would take its arguments; scripts are looked for in `places`."""
    lexer = shlex.shlex(command.replace("[-", "-").replace("]", ""), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _ENDS:
            words.append(word)
            continue
        _simple(words, places)
        words = []


def _simple(words: list[str], places: list[Path]) -> None:
    while words and (found := re.match(r"([A-Z_]+)=", words[0])):
        known_variable(found[1])
        words = words[1:]
    if not words:
        return
    name, arguments = words[0], [word for word in words[1:] if not _OMITTED.search(word)]
    checks: dict[str, Any] = {
        "python": _python,
        "make": _make,
        "pip": _pip,
        "torchrun": _torchrun,
        "srun": _within,
    }
    if name in checks:
        checks[name](arguments, places)
    elif name == "export":
        known_variable(arguments[0].partition("=")[0])
    elif name in PROJECT.get("scripts", {}):
        module, _, function = PROJECT["scripts"][name].partition(":")
        _parses([name, *arguments], lambda: getattr(importlib.import_module(module), function)())


def known_variable(name: str) -> None:
    """A DGS_ variable has to be one that something in the tree reads."""
    from dgs.config import Settings

    settings = {f"DGS_{field.upper()}" for field in Settings.__dataclass_fields__}
    if name.startswith("DGS_") and name not in settings:
        folders = ("python/dgs", "dgs_ext", "build_backend", "tests", "example")
        sources = {ROOT / "Makefile", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))}
        elsewhere = (path for path in sources if path.parent != Path(__file__).parent)
        assert any(name in path.read_text(encoding="utf-8") for path in elsewhere), f"nothing reads {name}"


def _python(words: list[str], places: list[Path]) -> None:
    if words[0] == "-c":
        compile(words[1], "-c", "exec")
    elif words[0] == "-m":
        module, *arguments = words[1:]
        if module == "dgs.launch":
            given = launcher.options().parse_args(arguments)
            _python([*(["-m"] if given.module else []), given.script, *given.args], places)
        elif module.startswith("dgs"):
            _module(module, arguments)
        else:
            assert importlib.util.find_spec(module), f"no module {module}"
    else:
        _script(words, places)


def _module(module: str, arguments: list[str]) -> None:
    spec = importlib.util.find_spec(f"{module}.__main__") or importlib.util.find_spec(module)
    assert spec and spec.origin, f"no module {module}"
    if "argparse" in Path(spec.origin).read_text(encoding="utf-8"):
        _parses([module, *arguments], lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))
    else:
        assert not arguments, f"{module} takes no arguments, got {arguments}"


def _script(words: list[str], places: list[Path]) -> None:
    found = [place / words[0] for place in places if (place / words[0]).is_file()]
    assert found, f"no script {words[0]}"
    source = found[0].read_text(encoding="utf-8")
    if "argparse" in source:
        _parses([str(found[0]), *words[1:]], lambda: runpy.run_path(str(found[0]), run_name="__main__"))
    else:
        missing = [word for word in words[1:] if word.startswith("-") and f'"{word}"' not in source]
        assert not missing, f"{words[0]} does not know {missing}"


def _parses(argv: list[str], run: Any) -> None:
    """Run a program until its parser has taken `argv`."""
    original = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        original(self, args, namespace)
        raise Parsed

    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        _beside(Path(argv[0]).parent),
        contextlib.redirect_stderr(said),
    ):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        patch.setattr(sys, "argv", argv)
        try:
            run()
        except Parsed:
            return
        except SystemExit as end:
            pytest.fail(f"{shlex.join(argv)}: exit {end.code}: {said.getvalue().strip().splitlines()[-1:]}")
    pytest.fail(f"{argv[0]} parsed nothing")


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Let a script import what lies beside it, and forget that afterwards: folders have modules of one name."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def _make(words: list[str], places: list[Path]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        if is_variable:
            assert re.search(rf"\b{name}\b", makefile), f"make: nothing reads {name}"
        else:
            assert re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE), f"make: no target {name}"


def _pip(words: list[str], places: list[Path]) -> None:
    for option, word in itertools.pairwise(words):
        if option == "-r":
            assert (ROOT / word).is_file(), f"pip: no file {word}"
    for word in words:
        if found := re.match(r"(?:\.|dgs)\[(.+)$", word):
            unknown = set(found[1].rstrip("]").split(",")) - set(PROJECT["optional-dependencies"])
            assert not unknown, f"pip: no extra {unknown}"


def _torchrun(words: list[str], places: list[Path]) -> None:
    given = torchrun.get_args_parser().parse_args(words)
    _script([given.training_script, *given.training_script_args], places)


def _within(words: list[str], places: list[Path]) -> None:
    if "python" in words:
        _python(words[words.index("python") + 1 :], places)
