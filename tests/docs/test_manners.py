# SPDX-License-Identifier: Apache-2.0
"""What is said in several files is the same in all of them, and the drawings can be drawn."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from shell import ROOT

import dgs

SVG = "{http://www.w3.org/2000/svg}"
DRAWINGS = sorted((ROOT / "docs" / "drawings").glob("*.svg"))


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {dgs.__version__}\n" in citation
    papers = (ROOT / "README.md").read_text(encoding="utf-8")
    cited = set(re.findall(r"arXiv:(\d{4}\.\d{5})", citation))
    assert len(cited) == 3
    assert all(f"arxiv.org/abs/{paper}" in papers for paper in cited)


def test_the_changelog_knows_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert dgs.__version__ in changelog
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert headings[0] == "Unreleased"


def test_wheels_are_built_for_the_pythons_that_are_promised() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    built = re.findall(r"\d+", pyproject["tool"]["cibuildwheel"]["build"].partition("{")[2])
    promised = re.findall(r"Python :: 3\.(\d+)", " ".join(pyproject["project"]["classifiers"]))
    assert built == promised


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)
def test_a_drawing_has_words_for_who_cannot_see_it_and_both_schemes(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    named = {element.get("id") for element in root.iter() if element.get("id")}
    assert set(root.attrib["aria-labelledby"].split()) <= named
    assert all(root.findtext(SVG + part) for part in ("title", "desc"))
    style = root.findtext(SVG + "style") or ""
    colours = set(re.findall(r"var\((--\w+)\)", path.read_text(encoding="utf-8")))
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    assert colours and all(f"{colour}:" in light and f"{colour}:" in dark for colour in colours)


def test_every_drawing_is_shown() -> None:
    shown = {
        name
        for page in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"drawings/(\w+)\.svg", page.read_text())
    }
    assert DRAWINGS and shown == {path.stem for path in DRAWINGS}
