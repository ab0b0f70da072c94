# SPDX-License-Identifier: Apache-2.0
"""The code blocks of the documentation, and what kind each is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

PROGRAMS = {
    "cat", "cd", "cmake", "dgs-server", "docker", "export", "git", "kubectl", "make", "pip", "python", "sbatch",
    "srun", "ss", "sudo", "sysctl", "tail", "tensorboard", "torchrun", "uv",
}  # fmt: skip
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*$")


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def first(self) -> str:
        return self.text.strip().partition("\n")[0].strip()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages(root: Path) -> list[Path]:
    """README, CONTRIBUTING and the documentation."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]


def blocks(root: Path) -> list[Block]:
    """Every code block; one without a language is taken for shell when each line begins with a program."""
    found = []
    for page in pages(root):
        for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
            if token.type in ("fence", "code_block"):
                language = token.info.split()[0] if token.info.strip() else guess(token.content)
                name = str(page.relative_to(root))
                found.append(Block(name, token.map[0] + 1 if token.map else 0, language, token.content))
    return found


def guess(text: str) -> str:
    """`sh` for a block of commands, else nothing."""
    lines = commands(text)
    return "sh" if lines and all(program(line) in PROGRAMS for line in lines) else ""


def commands(text: str) -> list[str]:
    """The commands of a shell block: comments taken off, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def program(command: str) -> str:
    """The program that a command runs, assignments before it left out."""
    words = [word for word in command.split() if not _ASSIGNMENT.match(word)]
    return words[0] if words else "export"
