# SPDX-License-Identifier: Apache-2.0
"""Decide whether the CUDA module is compiled, with which toolkit, and for which architectures.

Everything here is a plain function of its arguments (environment, folders, versions), so that the decisions
are tested without a compiler, a GPU or torch.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What is compiled when nothing else is said and no GPU is present: V100 (CUDA 12 alone), T4, A100, RTX 30, H100, B200
# and RTX 50, each with its PTX: every other GPU that nvcc knows, and newer ones, compile that when it is loaded.
DEFAULT_ARCHITECTURES = ("7.0", "7.5", "8.0", "8.6", "9.0", "10.0", "12.0")

# A folder is a toolkit when it has all of these. An `nvcc` on the PATH is often a wrapper in /usr/local/bin:
# taking its parent for the toolkit compiles, and then fails to link.
TOOLKIT_PARTS = (
    ("bin/nvcc",),
    ("include/cuda_runtime.h",),
    ("lib64/libcudart.so", "lib/libcudart.so", "targets/x86_64-linux/lib/libcudart.so"),
)


class BuildConfigError(Exception):
    """The build was asked for something that is not to be had here; the message says what and what to do."""


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: its folder and its version as `nvcc` states it ("13.0")."""

    home: Path
    version: str


@dataclass(frozen=True)
class CudaChoice:
    """The decision: `toolkit` is None when the CUDA module is not built; `reason` says why, either way."""

    toolkit: Toolkit | None
    reason: str


def candidates(env: Mapping[str, str], nvcc_on_path: str | None) -> Iterator[tuple[str, Path]]:
    """Yield (where it was named, folder) in the order in which toolkits are looked for.

    A folder that CUDA_HOME or CUDA_PATH names is the only one looked at: taking another would hide a typo.
    """
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if env.get(name):
            yield name, Path(env[name])
            return
    if nvcc_on_path:
        yield "nvcc on the PATH", Path(nvcc_on_path).resolve().parent.parent
    yield "the usual place", Path("/usr/local/cuda")


def missing_part(home: Path) -> str | None:
    """Return the first part of a toolkit that `home` lacks, or None when it is complete."""
    for alternatives in TOOLKIT_PARTS:
        if not any((home / part).exists() for part in alternatives):
            return alternatives[0]
    return None


def _nvcc(home: Path, *arguments: str) -> str:
    """Return what `home`'s nvcc prints."""
    command = [str(home / "bin/nvcc"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def nvcc_version(home: Path) -> str:
    """Ask `home`'s nvcc for the release it is of, such as "13.0"."""
    text = _nvcc(home, "--version")
    match = re.search(r"release (\d+\.\d+)", text)
    if match is None:
        raise BuildConfigError(f"{home}/bin/nvcc --version names no release; it printed: {text.strip()!r}")
    return match[1]


def find_toolkit(
    env: Mapping[str, str],
    nvcc_on_path: str | None,
    version_of: Callable[[Path], str] = nvcc_version,
) -> tuple[Toolkit | None, str]:
    """Return the first complete toolkit, or None and a sentence with every place that was looked at."""
    looked: list[str] = []
    for where, home in candidates(env, nvcc_on_path):
        lacks = missing_part(home)
        if lacks is None:
            return Toolkit(home, version_of(home)), f"found in {home} ({where})"
        looked.append(f"{home} ({where}) has no {lacks}")
    return None, "no CUDA toolkit: " + "; ".join(looked)


def choose_cuda(
    env: Mapping[str, str],
    torch_version: str,
    torch_cuda: str | None,
    version_of: Callable[[Path], str] = nvcc_version,
) -> CudaChoice:
    """Decide by DGS_CUDA (auto, 1 or 0), the torch at hand and the toolkit at hand.

    Raises BuildConfigError when DGS_CUDA=1 cannot be had, or DGS_CUDA is something else.
    """
    wanted = env.get("DGS_CUDA") or "auto"
    if wanted not in ("auto", "1", "0"):
        raise BuildConfigError(f"DGS_CUDA must be auto, 1 or 0, got {wanted!r}")
    if wanted == "0":
        return CudaChoice(None, "DGS_CUDA=0")
    toolkit, found = find_toolkit(env, shutil.which("nvcc", path=env.get("PATH", "")), version_of)
    refusal = _refusal(toolkit, found, torch_version, torch_cuda)
    if refusal is None:
        assert toolkit is not None  # _refusal returns a sentence for None
        return CudaChoice(toolkit, f"CUDA toolkit {toolkit.version} {found}")
    if wanted == "1":
        raise BuildConfigError(f"DGS_CUDA=1, but {refusal}. Or build for the CPU alone with DGS_CUDA=0.")
    return CudaChoice(None, refusal)


def _refusal(toolkit: Toolkit | None, found: str, torch_version: str, torch_cuda: str | None) -> str | None:
    """Say why CUDA cannot be built, or return None when it can."""
    if torch_cuda is None:
        return f"torch {torch_version} is a build without CUDA; install a CUDA build of torch first"
    major = torch_cuda.partition(".")[0]
    torch_is = f"torch {torch_version} was built with CUDA {torch_cuda}"
    if toolkit is None:
        return f"{found}. Install CUDA {major}.x ({torch_is}) or set CUDA_HOME to it"
    if toolkit.version.partition(".")[0] != major:
        return (
            f"the CUDA toolkit in {toolkit.home} is {toolkit.version} and {torch_is}: the major versions must"
            f" be equal. Set CUDA_HOME to a CUDA {major}.x toolkit"
        )
    return None


def supported_by(home: Path) -> tuple[str, ...]:
    """List the architectures that `home`'s nvcc compiles for, as "8.6", oldest first."""
    numbers = sorted({int(number) for number in re.findall(r"sm_(\d+)\b", _nvcc(home, "--list-gpu-code"))})
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)


def choose_architectures(
    env: Mapping[str, str], present: Sequence[tuple[int, int]], supported: Sequence[str]
) -> tuple[str, str]:
    """Return (list in TORCH_CUDA_ARCH_LIST's form, where it comes from).

    `present` are the compute capabilities of the GPUs in this machine, `supported` what nvcc knows, oldest
    first. A GPU newer than nvcc gets the newest architecture's PTX, which its driver compiles when loaded; without a
    GPU here each of the default list comes with its own, for those in between.
    """
    if env.get("TORCH_CUDA_ARCH_LIST"):
        return env["TORCH_CUDA_ARCH_LIST"], "TORCH_CUDA_ARCH_LIST"
    order = {name: rank for rank, name in enumerate(supported)}
    gpus = sorted(set(present))
    if gpus:
        newest = tuple(int(part) for part in supported[-1].split("."))
        names = {f"{major}.{minor}" if (major, minor) <= newest else supported[-1] for major, minor in gpus}
        unknown = sorted(names - order.keys())
        if unknown:
            raise BuildConfigError(
                f"this CUDA toolkit compiles for {', '.join(supported)}, and not for the GPU of capability"
                f" {', '.join(unknown)} in this machine. Use an older toolkit, or set TORCH_CUDA_ARCH_LIST"
            )
        source = "GPUs present"
    else:
        names = {name for name in DEFAULT_ARCHITECTURES if name in order}
        source = "default list, no GPU present"
        if names:
            return ";".join(f"{name}+PTX" for name in sorted(names, key=order.__getitem__)), source
    if not names:
        raise BuildConfigError(f"no architecture left to compile for: nvcc knows {', '.join(supported)}")
    chosen = sorted(names, key=order.__getitem__)
    return ";".join(chosen) + "+PTX", source
