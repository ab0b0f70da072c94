# SPDX-License-Identifier: Apache-2.0
"""Find the torch of the environment that pip installs into, from inside pip's isolated build.

pip runs the backend with the outer environment's interpreter and hides only its site-packages. Showing the
build that one folder again saves downloading a second torch (gigabytes) for every build.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager

from .torch_version import too_old


def folder() -> str | None:
    """Return the site-packages folder that holds a torch this build can use, or None.

    A torch that is too old counts as none: pip fetches one for the build, and installs a newer one anyway.
    """
    purelib = sysconfig.get_path("purelib")
    found = next(iter(importlib.metadata.distributions(path=[purelib], name="torch")), None)
    return None if found is None or too_old(found.version) else purelib


@contextmanager
def visible() -> Iterator[None]:
    """Make the outer torch importable, here and in the build's subprocesses, after all else."""
    purelib = folder()
    if purelib is None or purelib in sys.path:
        yield
        return
    before = os.environ.get("PYTHONPATH")
    sys.path.append(purelib)
    os.environ["PYTHONPATH"] = purelib if before is None else os.pathsep.join((before, purelib))
    try:
        yield
    finally:
        sys.path.remove(purelib)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
