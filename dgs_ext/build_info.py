# SPDX-License-Identifier: Apache-2.0
"""What the compiled modules beside this file were built with: the record that setup.py left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dgs_ext.errors import BuildError

RECORD = "build_info.json"
REBUILD = "in the dgs source folder run: pip install --no-build-isolation --no-deps --force-reinstall ."


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """One build; `cuda` is the toolkit's version or None, `architectures` as in TORCH_CUDA_ARCH_LIST."""

    version: str
    python: str
    machine: str
    compiler: str
    flags: str
    instruction_sets: str
    torch: str
    oldest_torch: str
    cuda: str | None
    cuda_reason: str
    architectures: str


def read(folder: Path) -> BuildInfo:
    """Read the record in `folder`.

    Raises BuildError when there is none, that is, when nothing was compiled there.
    """
    path = folder / RECORD
    if not path.exists():
        raise BuildError(
            f"{folder} holds no compiled modules: it is a source folder that was not built. To build in it"
            " run, one folder above: pip install --no-build-isolation -e . (where dgs is installed elsewhere"
            " in this environment, this folder hides it: run python -P, or from another folder)"
        )
    return BuildInfo(**json.loads(path.read_text(encoding="utf-8")))
