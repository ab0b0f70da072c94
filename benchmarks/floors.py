# SPDX-License-Identifier: Apache-2.0
"""The memory floor of each step: loops over the same arrays, compiled here (floor.cpp), and torch's own."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from harness import Contestant
from steps import Problem
from torch import Tensor

HERE = Path(__file__).resolve().parent
FLAGS = ["-O3", "-march=native", "-std=c++20", "-Wno-psabi", "-DTORCH_TARGET_VERSION=0x020a000000000000"]


def cpu_flags() -> str:
    """The instruction sets of this CPU, as Linux names them; its architecture elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


@functools.cache
def why_not_compiled() -> str:
    """Compiles and loads floor.cpp, kept below build/; returns why that failed, or nothing."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no GPU
    from torch.utils import cpp_extension

    # A folder for each CPU and torch: code for another machine's instructions would crash here.
    key = hashlib.sha256(f"{cpu_flags()} {torch.__version__}".encode()).hexdigest()[:12]
    folder = HERE.parent / "build" / f"floor-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    # ninja lies beside the interpreter, which may have been started without its environment.
    beside = str(Path(sys.executable).parent)
    if shutil.which("ninja") is None:
        os.environ["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", "")])
    try:
        cpp_extension.load(
            "dgs_floor",
            [str(HERE / "floor.cpp")],
            extra_cflags=FLAGS,
            build_directory=str(folder),
            is_python_module=False,
        )
    except (RuntimeError, OSError) as error:
        return str(error).strip().partition("\n")[0]
    return ""


def _compiled(kind: str, p: Problem) -> Iterator[Contestant]:
    """The loops of floor.cpp."""
    floor, sizes = torch.ops.dgs_floor, p.offsets.diff()

    def streams(*operands: list[Tensor]) -> Tensor:
        return torch.tensor([[t.data_ptr() for t in p.segments(operand)] for operand in operands])

    g, w, v, v_next, r, r_next = (
        p.grads, p.weights, p.velocity, p.velocity_next, p.residual, p.residual_next
    )  # fmt: skip
    if kind in ("read", "read2", "pull"):
        at = streams(v, r)[:, :1]  # flat operands
        size = p.offsets[-1:]
        if kind == "read":
            yield Contestant("floor, read", lambda: floor.read(at, size))
            return
        nothing = torch.empty(0, dtype=torch.int64)
        indices = p.out.compact()[0] if kind == "pull" else nothing
        yield Contestant(f"floor, {kind}", lambda: floor.pull(at, size, indices, 0.0))
        return
    ways = {
        "velocity": ((g, w, v_next, v_next), (g, w, v, v_next)),
        "dgc": ((g, w, v_next, r_next, v_next, r_next), (g, w, v, r, v_next, r_next)),
        "dense": (None, (g, w, v_next)),
    }
    loop = getattr(floor, kind)
    in_place, apart = (None if way is None else streams(*way) for way in ways[kind])
    if in_place is not None:
        yield Contestant("floor, in place", lambda: loop(in_place, sizes, False))
    yield Contestant("floor, through the cache", lambda: loop(apart, sizes, False))
    yield Contestant("floor, past the cache", lambda: loop(apart, sizes, True))


def _torchs(kind: str, p: Problem) -> Iterator[Contestant]:
    """torch's element-wise kernels over as many bytes: whole flat vectors, the best case for them."""
    theta, v, r, r_next = (
        operand[0] for operand in (p.velocity, p.velocity_next, p.residual, p.residual_next)
    )

    def dgc() -> None:
        v.addcmul_(theta, r)  # 16 bytes a parameter
        r_next.neg_()  # and 8

    def pull() -> None:
        torch.dot(theta, r)
        r[indices] += 0.0

    indices = p.out.compact()[0] if kind == "pull" else None
    runs = {
        "read": theta.sum,
        "read2": lambda: torch.dot(theta, r),
        "velocity": lambda: v.addcmul_(theta, r),
        "dgc": dgc,
        "dense": lambda: torch.mul(theta, r, out=v),
        "pull": pull,
    }
    yield Contestant("floor, torch", runs[kind])


def contestants(kind: str, p: Problem) -> Iterator[Contestant]:
    """The ways to touch what a step of this kind touches; the fastest of them is the floor."""
    yield from _torchs(kind, p)
    if p.device.type == "cpu" and not why_not_compiled():
        yield from _compiled(kind, p)
