# SPDX-License-Identifier: Apache-2.0
"""docs/troubleshooting.md quotes what the library says, and leaves out none of its warnings and errors."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

import pytest
from shell import ROOT

import dgs.errors

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
_FORMAT = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[sdgfrx]")
_LOGGED = {"log.warning", "log.error", "log.exception", "warnings.warn"}


@dataclass(frozen=True)
class Said:
    """A sentence of the library, with … where something is filled in, and what says it."""

    by: str
    text: str
    place: str


def literal(node: ast.expr) -> str:
    """The text of a string, an f-string or a sum of both."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(literal(part) for part in parts)
        case ast.BinOp(left=left, right=right):
            return literal(left) + literal(right)
    return "…"


def said() -> list[Said]:
    """What each raise and each line of the log says."""
    found = []
    for folder in ("python/dgs", "dgs_ext"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    by = ast.unparse(node.func).removeprefix("errors.")
                    texts = [_FORMAT.sub("…", literal(argument)) for argument in node.args]
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    found += [Said(by, text, place) for text in texts if text.strip("… ")]
    return found


SAID = [s for s in said() if s.by in _LOGGED or s.by.endswith("Error")]


def quoted() -> list[tuple[str, str]]:
    """(class or nothing, message or nothing) of each quotation in the first column of the page's tables."""
    cells = [row.split("|")[1] for row in PAGE.splitlines() if row.startswith("| `")]
    quotes = [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell)]
    pairs = [re.fullmatch(r"(?:(\w+Error)(?:: |$))?(.*)", quote) for quote in quotes]
    return [(pair[1] or "", pair[2]) for pair in pairs if pair]


def is_said(quote: str, text: str) -> bool:
    """Whether the parts of `quote` between … follow one another in `text`."""
    parts = [re.escape(part.strip()) for part in quote.split("…") if part.strip()]
    return bool(re.search(".*?".join(parts), text, re.DOTALL))


@pytest.mark.parametrize(("error", "message"), quoted())
def test_what_is_quoted_is_said(error: str, message: str) -> None:
    assert error or re.search(r"\w{4}", message), "says nothing that could be looked for"
    assert not error or error in dgs.errors.__all__
    by = {error} if error else _LOGGED
    assert not message or any(s.by in by and is_said(message, s.text) for s in SAID)


def test_every_warning_is_quoted() -> None:
    messages = [message for error, message in quoted() if not error]
    missing = [s for s in SAID if s.by in _LOGGED and not any(is_said(m, s.text) for m in messages)]
    assert not missing, "give each a line in docs/troubleshooting.md"


def test_every_class_of_error_is_named() -> None:
    named = {error for error, _ in quoted()} | set(re.findall(r"`(\w+Error)`", PAGE))
    assert set(dgs.errors.__all__) - named == {"DGSError"}, "the base class alone is never raised"


def test_the_sentences_are_found() -> None:
    """So that the tests above look at something: one said by a class, one logged, one with its parts filled in."""
    assert len(SAID) > 150
    assert is_said(
        "no server at …: …. Is it started", "no server at …:…: …. Is it started, and the port open?"
    )
    assert not is_said("no server at …: …. Has it", "no server at …:…: …. Is it started?")
