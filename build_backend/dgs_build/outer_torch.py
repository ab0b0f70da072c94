# SPDX-License-Identifier: Apache-2.0
"""Find the torch of the environment that pip installs into, from inside pip's isolated build.

pip runs the backend with the outer environment's interpreter and hides only its site-packages. Showing the
build those folders again saves downloading a second torch (gigabytes) for every build.
"""

from __future__ import annotations

import importlib.metadata
import os
import site
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .torch_version import too_old


def folders() -> list[str]:
    """List the outer environment's site-packages folders, as `site` would have put them on its path."""
    own = site.getsitepackages()
    if sys.prefix == sys.base_prefix:
        return [site.getusersitepackages(), *own]
    config = Path(sys.prefix, "pyvenv.cfg")
    settings = dict(line.split(" = ", 1) for line in config.read_text().splitlines() if " = " in line)
    if settings.get("include-system-site-packages", "").lower() != "true":
        return own
    return [*own, site.getusersitepackages(), *site.getsitepackages([sys.base_prefix])]


def usable(path: Sequence[str]) -> bool:
    """Say whether the torch that `path` would give is one this build can use.

    One that is too old counts as none: pip fetches one for the build, and installs a newer one anyway.
    """
    found = next(iter(importlib.metadata.distributions(path=list(path), name="torch")), None)
    return found is not None and too_old(found.version) is None


@contextmanager
def visible() -> Iterator[None]:
    """Make the outer torch importable, here and in the build's subprocesses, after all else."""
    added = [folder for folder in folders() if folder not in sys.path]
    if not usable(added):
        yield
        return
    before = os.environ.get("PYTHONPATH")
    path = list(sys.path)
    sys.path += added
    os.environ["PYTHONPATH"] = os.pathsep.join([*([before] if before else []), *added])
    try:
        yield
    finally:
        sys.path[:] = path
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
