# SPDX-License-Identifier: Apache-2.0
"""The documentation site, which `make docs` writes to build/docs. Its pages read as well without Sphinx."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

HERE = Path(__file__).parent
_VERSION = (HERE.parent / "dgs_ext" / "_version.py").read_text(encoding="utf-8")

project = "DGS"
author = "the DGS authors"
project_copyright = author
(release,) = re.findall(r'__version__ = "([^"]+)"', _VERSION)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["demo/*", "convergence/*"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# A block without a language is a command, a layout or an equation; `x` in a docstring is code.
highlight_language = "none"
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"DGS {release}"
html_static_path = ["_static"]
html_css_files = ["dgs.css"]
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
smartquotes_action = "D"  # dashes, but a prime in an equation is no quotation mark


def inline_drawings(_app: Sphinx, doctree: nodes.document, _docname: str) -> None:
    """Puts SVG files into the page itself: an <img> would not follow the page's own switch between light and dark."""
    for image in list(doctree.findall(nodes.image)):
        path = HERE / image["uri"]
        if path.suffix == ".svg":
            html = f'<figure class="drawing">{path.read_text(encoding="utf-8")}</figure>'
            image.parent.replace(image, nodes.raw("", html, format="html"))


_OPERANDS = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*\*?)*): ")
_MARKUP = re.compile(r"(`[^`]*`)|([*|])|(?<=\w)(_)(?!\w)")


def plain_text(_app: Sphinx, _what: str, name: str, obj: object, _options: object, lines: list[str]) -> None:
    """Docstrings are plain text: marks that reStructuredText would read are escaped, and operands made a list.

    What a dataclass says of its fields in their metadata (the settings) is added.
    """
    escaped = _escaped(lines)
    if name.startswith("dgs_ext.ops."):
        escaped = [_OPERANDS.sub(r"- **\1**: ", line) for line in escaped]
    lines[:] = escaped
    if dataclasses.is_dataclass(obj):
        lines += ["", *(_setting(field) for field in dataclasses.fields(obj) if "doc" in field.metadata), ""]


def _escaped(lines: list[str]) -> list[str]:
    return [_MARKUP.sub(lambda m: m[1] or "\\" + m[0], line) for line in lines]


def property_as_written(
    _app: Sphinx, _what: str, _name: str, obj: object, _options: object, lines: list[str]
) -> None:
    """napoleon takes what stands before a colon in a property's sentence for its type: the sentence again."""
    if isinstance(obj, property) and obj.__doc__:
        lines[:] = [*_escaped(inspect.cleandoc(obj.__doc__).splitlines()), ""]


def _setting(field: dataclasses.Field[Any]) -> str:
    return f"- **{field.name}** (``{field.type}``, ``{field.default!r}``): {field.metadata['doc']}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", inline_drawings)
    app.connect("autodoc-process-docstring", plain_text, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", property_as_written, priority=900)  # behind it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
