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
from collections.abc import Callable
from pathlib import Path

import torch
from harness import Contestant
from operands import Problem
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


Runs = dict[str, Callable[[], object]]
_APART = ("through the cache", "past the cache")


def writes_apart(contestant: str) -> bool:
    """Whether this floor writes to other memory than it reads: the streams of an op that leaves its state whole."""
    return contestant.endswith(_APART)


def _compiled(kind: str, p: Problem) -> Runs:
    """The loops of floor.cpp, by how they store."""
    loops, sizes, numel = torch.ops.dgs_floor, p.offsets.diff(), p.offsets[-1:]
    g, w, v, v_next = p.grads, p.weights, p.velocity, p.velocity_next
    r, r_next = p.residual, p.residual_next

    def streams(*operands: list[Tensor]) -> Tensor:
        return torch.tensor([[t.data_ptr() for t in p.segments(operand)] for operand in operands])

    def ways(loop: Callable[..., object], apart: Tensor, in_place: Tensor | None = None) -> Runs:
        through, past = _APART
        runs = {through: lambda: loop(apart, sizes, False), past: lambda: loop(apart, sizes, True)}
        return runs if in_place is None else {"in place": lambda: loop(in_place, sizes, False), **runs}

    if kind == "velocity":
        return ways(loops.velocity, streams(g, w, v, v_next), streams(g, w, v_next, v_next))
    if kind == "dgc":
        apart = streams(g, w, v, r, v_next, r_next)
        return ways(loops.dgc, apart, streams(g, w, v_next, r_next, v_next, r_next))
    if kind == "dense":
        return ways(loops.dense, streams(g, w, v_next))
    if kind == "add":
        at = streams(v, v_next, v_next)
        return {"in place": lambda: loops.dense(at, sizes, False)}
    flat = torch.tensor([[t.data_ptr()] for t in (v[0], r[0])])
    if kind in ("scatter", "scatter2"):
        both = torch.tensor(
            [t.data_ptr() for t in (v_next[0], (r_next if kind == "scatter2" else v_next)[0])]
        )
        indices, values = p.out.compact()
        return {"in place": lambda: loops.scatter(both, indices, values)}
    if kind == "gather":
        indices, values = p.out.compact()
        return {"read": lambda: loops.gather(flat[0], indices, values)}
    if kind == "read":
        return {"read": lambda: loops.read(flat, numel)}
    if kind in ("read2", "pull"):
        indices = p.out.compact()[0] if kind == "pull" else torch.empty(0, dtype=torch.int64)
        return {"read": lambda: loops.pull(flat, numel, indices, 0.0)}
    return {}


def _torchs(kind: str, p: Problem) -> Callable[[], object]:
    """torch's element-wise kernels over the same arrays; on a GPU over whole flat vectors, one launch for each."""
    flat = (operand[0] for operand in (p.velocity, p.velocity_next, p.residual, p.residual_next))
    v, v_next, r, r_next = flat
    indices, values = p.out.compact()
    parts = [(v_next, v, r)]
    if p.device.type == "cpu":
        parts = list(
            zip(*(p.segments(operand) for operand in (p.velocity_next, p.grads, p.weights)), strict=True)
        )

    def velocity() -> None:
        for to, g, w in parts:
            to.addcmul_(g, w)  # 16 bytes a parameter

    def dgc() -> None:
        velocity()
        r_next.neg_()  # and 8

    def dense() -> None:
        for to, g, w in parts:
            torch.mul(g, w, out=to)

    def pull() -> None:
        torch.dot(v, r)
        r.index_add_(0, indices, values, alpha=0.0)

    def scatter2() -> None:
        v_next.index_add_(0, indices, values)
        r_next.index_add_(0, indices, values)

    runs: Runs = {
        "read": v.sum,
        "read2": lambda: torch.dot(v, r),
        "velocity": velocity,
        "dgc": dgc,
        "dense": dense,
        "add": lambda: v_next.add_(v),
        "pull": pull,
        "values": values.neg_,
        "scatter": lambda: v_next.index_add_(0, indices, values),
        "scatter2": scatter2,
        "gather": lambda: v.index_select(0, indices),
    }
    return runs[kind]


def contestants(kind: str, p: Problem) -> list[Contestant]:
    """The ways to touch what a step of this kind touches; the fastest of them is the floor."""
    runs = {"torch": _torchs(kind, p)}
    if p.device.type == "cpu" and not why_not_compiled():
        runs |= _compiled(kind, p)
    return [Contestant(f"floor, {how}", run) for how, run in runs.items()]
