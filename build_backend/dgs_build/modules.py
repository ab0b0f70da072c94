# SPDX-License-Identifier: Apache-2.0
"""The three compiled modules: their sources, by glob, and their flags."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from setuptools import Extension

from .torch_version import TORCH_TARGET_VERSION

ROOT = Path(__file__).resolve().parents[2]
CXX_FLAGS = ("-O3", "-g0", "-std=c++20", "-ffp-contract=off", "-fvisibility=hidden")
# nvcc contracts a*b+c into one rounding unless told not to; CPU, CUDA and the twins must agree bit for bit.
NVCC_FLAGS = (
    "-O3",
    "-std=c++20",
    "--fmad=false",
    "-DUSE_CUDA",
    "-Xcompiler=-ffp-contract=off,-fvisibility=hidden",
)
STABLE_ABI = (f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}",)

SOURCES = {
    "_cpu": ("csrc/ops.cpp", "csrc/cpu/*.cpp"),
    "_cuda": ("csrc/cuda/*.cpp", "csrc/cuda/*.cu"),
    "_wire": ("csrc/wire_module.cpp", "csrc/wire/*.cpp"),
}


def sources(module: str, root: Path = ROOT) -> list[str]:
    """List `module`'s sources relative to `root`, in a fixed order: two builds link the same bytes."""
    return sorted(path.relative_to(root).as_posix() for glob in SOURCES[module] for path in root.glob(glob))


def plain(names: Iterable[str], root: Path = ROOT) -> list[Extension]:
    """Return the modules without torch's flags: enough for metadata and an sdist, which need no torch."""
    return [Extension(f"dgs_ext.{name}", sources(name, root), language="c++") for name in names]


def with_torch(cuda: bool, root: Path = ROOT) -> list[Extension]:
    """Return the modules to compile with torch.utils.cpp_extension, the CUDA one only where `cuda`."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension, include_paths, library_paths

    def options(module: str, cxx: Iterable[str] = ()) -> dict[str, Any]:
        return {
            "name": f"dgs_ext.{module}",
            "sources": sources(module, root),
            "include_dirs": [str(root / "csrc")],
            "extra_compile_args": {"cxx": [*CXX_FLAGS, *cxx]},
        }

    built = [CppExtension(**options("_cpu", STABLE_ABI), py_limited_api=True)]
    if cuda:
        gpu = options("_cuda", (*STABLE_ABI, "-DUSE_CUDA"))
        gpu["extra_compile_args"]["nvcc"] = [*NVCC_FLAGS, *STABLE_ABI]
        built.append(CUDAExtension(**gpu, py_limited_api=True))
    # The packer takes the pybind11 that lies in torch's include folder, and of torch's library the threads alone.
    wire = options("_wire", STABLE_ABI)
    wire["include_dirs"] = [str(root / "csrc"), *include_paths()]
    wire |= {"libraries": ["torch_cpu"], "library_dirs": library_paths()}
    built.append(Extension(**wire, language="c++"))
    return built
