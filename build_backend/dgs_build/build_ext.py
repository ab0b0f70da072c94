# SPDX-License-Identifier: Apache-2.0
"""The build_ext command where torch is importable: decide about CUDA, compile, record what was built."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch
from setuptools import Extension

from . import modules, toolkit
from .torch_version import OLDEST_TORCH, too_old

_problem = too_old(torch.__version__)
if _problem:
    raise toolkit.BuildConfigError(_problem)
CUDA = toolkit.choose_cuda(os.environ, torch.__version__, torch.version.cuda)
ARCHITECTURES, ARCHITECTURES_FROM = "", ""
if CUDA.toolkit is not None:
    gpus = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
    known = toolkit.supported_by(CUDA.toolkit.home)
    ARCHITECTURES, ARCHITECTURES_FROM = toolkit.choose_architectures(os.environ, gpus, known)
    os.environ["CUDA_HOME"] = str(CUDA.toolkit.home)
    os.environ["TORCH_CUDA_ARCH_LIST"] = ARCHITECTURES
# Only now: it reads CUDA_HOME once, when it is imported, and without it guesses from the nvcc on the PATH.
from torch.utils import cpp_extension  # noqa: E402

PACKAGE = "dgs_ext"
RECORD = "build_info.json"
# What a compiler defines when it may use an instruction set, and that set's name.
INSTRUCTION_SETS = {
    "__SSE2__": "SSE2",
    "__SSE4_2__": "SSE4.2",
    "__AVX__": "AVX",
    "__AVX2__": "AVX2",
    "__FMA__": "FMA",
    "__AVX512F__": "AVX-512",
    "__ARM_NEON": "NEON",
    "__ARM_FEATURE_SVE": "SVE",
}


def _ask_compiler(*arguments: str) -> str:
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    command = [*shlex.split(compiler), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, input="").stdout


def _instruction_sets() -> str:
    """Ask the compiler which instruction sets its flags, CFLAGS included, let it use everywhere."""
    flags = shlex.split(os.environ.get("CFLAGS", ""))
    defined = set(_ask_compiler(*flags, *modules.CXX_FLAGS, "-dM", "-E", "-x", "c++", "-").split())
    found = [name for macro, name in INSTRUCTION_SETS.items() if macro in defined]
    return f"{platform.machine()} with {', '.join(found)}" if found else platform.machine()


class BuildExt(cpp_extension.BuildExtension):
    """torch's BuildExtension for this repository's three modules."""

    def finalize_options(self) -> None:
        """Put the list of modules together before setuptools reads it."""
        self.distribution.ext_modules = modules.with_torch(cuda=CUDA.toolkit is not None)
        super().finalize_options()
        if self.editable_mode:
            # pip's editable installs name a temporary folder: objects would be compiled anew every time.
            self.build_temp = f"build/temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"

    def run(self) -> None:
        """Compile, and leave build_info.json beside the modules."""
        what = f"CUDA for {ARCHITECTURES} ({ARCHITECTURES_FROM})" if CUDA.toolkit else "CPU only"
        self.announce(f"dgs: {what}: {CUDA.reason}", level=logging.WARNING)
        super().run()
        record = json.dumps(self._record(), indent=2) + "\n"
        targets = [Path(self.build_lib, PACKAGE)] + [modules.ROOT / PACKAGE] * bool(self.inplace)
        for folder in targets:
            self._remove_stale(folder)
            (folder / RECORD).write_text(record, encoding="utf-8")

    def build_extension(self, ext: Extension) -> None:
        """Compile one module in a folder of its own: ninja forgets what is not in the file it is running."""
        shared = self.build_temp
        self.build_temp = str(Path(shared, ext.name))
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = shared

    def _remove_stale(self, folder: Path) -> None:
        """Remove an earlier build's modules: a CPU build must not ship the _cuda that lay there."""
        current = {Path(self.get_ext_filename(ext.name)).name for ext in self.extensions}
        for path in folder.glob("*.so"):
            own = re.match(r"(_cpu|_cuda|_wire)\.(abi3|cpython-\d+)", path.name)
            if own and path.name not in current and own[2] in ("abi3", sys.implementation.cache_tag):
                path.unlink()

    def _record(self) -> dict[str, Any]:
        return {
            "version": self.distribution.get_version(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "compiler": _ask_compiler("--version").partition("\n")[0].strip(),
            "flags": " ".join(modules.CXX_FLAGS),
            "instruction_sets": _instruction_sets(),
            "torch": torch.__version__,
            "oldest_torch": "{}.{}".format(*OLDEST_TORCH),
            "cuda": CUDA.toolkit.version if CUDA.toolkit else None,
            "cuda_reason": CUDA.reason,
            "architectures": ARCHITECTURES,
        }

    def get_outputs(self) -> list[str]:
        """List the record with the modules, so that installers know of it."""
        record = [] if self.inplace else [str(Path(self.build_lib, PACKAGE, RECORD))]
        return [*super().get_outputs(), *record]
