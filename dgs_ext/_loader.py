# SPDX-License-Identifier: Apache-2.0
"""Load the compiled modules, and turn whatever can go wrong with that into one sentence with a cure.

Plain functions of a folder and a BuildInfo, so that tests can hand them broken modules.
"""

from __future__ import annotations

import logging
import re
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NoReturn

import torch

from dgs_ext.build_info import REBUILD, BuildInfo
from dgs_ext.errors import BuildError

log = logging.getLogger(__name__)


def find(module: str, folder: Path) -> Path:
    """Return the file of `module` in `folder` that this Python can load.

    Raises BuildError when there is none; it names the Python that a module there was built for.
    """
    for suffix in EXTENSION_SUFFIXES:
        path = folder / f"{module}{suffix}"
        if path.exists():
            return path
    here = f"Python {sys.version_info.major}.{sys.version_info.minor} on {sys.implementation.cache_tag}"
    others = ", ".join(sorted(path.name for path in folder.glob(f"{module}.*.so")))
    have = f"only {others}" if others else "no such file"
    raise BuildError(f"dgs_ext.{module} is not built for {here}: {folder} holds {have}; {REBUILD}")


def load_cpu(folder: Path, info: BuildInfo) -> None:
    """Register the ops and their CPU kernels with torch.

    Raises BuildError when the module and the running torch do not fit.
    """
    if _release(torch.__version__) < _release(info.oldest_torch):
        raise BuildError(
            f"dgs {info.version}, built with torch {info.torch}, needs torch {info.oldest_torch} or newer,"
            f" and this is torch {torch.__version__}; run: pip install --upgrade 'torch>={info.oldest_torch}'"
        )
    path = find("_cpu", folder)
    try:
        torch.ops.load_library(path)
    except OSError as error:
        # Not chained: the linker's words ("undefined symbol: ...") help nobody. They are in the debug log.
        raise BuildError(_mismatch("dgs", info, error)) from None


def load_cuda(folder: Path, info: BuildInfo) -> str | None:
    """Register the CUDA kernels; return None, or the sentence that says why CUDA tensors cannot be used.

    Where they cannot, every op of dgs is given a CUDA kernel that raises BuildError with that sentence:
    importing works without CUDA, and the call says what is missing.
    """
    problem = _try_cuda(folder, info)
    if problem is not None:
        _explain_on_call(problem)
    return problem


def _try_cuda(folder: Path, info: BuildInfo) -> str | None:
    running = torch.version.cuda
    if info.cuda is None:
        return (
            f"dgs {info.version} was built without CUDA ({info.cuda_reason}); to build it with CUDA,"
            f" {REBUILD.replace('pip', 'DGS_CUDA=1 pip')}"
        )
    if running is None:
        return f"dgs was built for CUDA {info.cuda}, and torch {torch.__version__} is a build without CUDA"
    if running.partition(".")[0] != info.cuda.partition(".")[0]:
        return (
            f"dgs was built with CUDA {info.cuda} (torch {info.torch}), and torch {torch.__version__} uses"
            f" CUDA {running}: the major versions must be equal; {REBUILD}"
        )
    try:
        torch.ops.load_library(find("_cuda", folder))
    except BuildError as error:
        return str(error)
    except OSError as error:
        return _mismatch("the CUDA module of dgs", info, error)
    return None


def _mismatch(what: str, info: BuildInfo, error: OSError) -> str:
    """Put a failed load in one sentence: both versions, the linker's reason if it has one, the cure."""
    reason = str(error.__cause__ or error)  # torch wraps it in "Could not load this library"
    log.debug("loading %s failed: %s", what, reason)
    because = "" if "symbol" in reason else f" ({reason})"
    return (
        f"{what} {info.version} was built with torch {info.torch} on {info.machine} and cannot be loaded by"
        f" torch {torch.__version__}{because}; {REBUILD}"
    )


def _release(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise BuildError(f"cannot read the torch version {version!r}: it must begin with major.minor")
    return int(match[1]), int(match[2])


def _explain_on_call(problem: str) -> None:
    """Give each op of dgs a CUDA kernel that raises BuildError(problem)."""

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise BuildError(problem)

    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("dgs::"):
            _cuda_library.impl(name.removeprefix("dgs::"), missing, "CUDA")


# torch drops a library's kernels when the object goes away, so it lives as long as this module.
_cuda_library = torch.library.Library("dgs", "FRAGMENT")
