# SPDX-License-Identifier: Apache-2.0
"""The emulated CUDA ops as Python functions: built once with the host compiler, called with tensors' memory."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
GRADIENT_TYPE = {torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}

# What each C function takes after the Frame, by the names of the op's schema.
CALLS: dict[str, tuple[str, ...]] = {
    "select": ("x", "sampled"),
    "select_difference": ("x", "y", "sampled"),
    "step_velocity": ("grads", "weights", "velocity", "velocity_out", "lr", "weight_decay", "sampled"),
    "step_dgc": (
        *("grads", "weights", "velocity", "residual", "velocity_out", "residual_out"),
        *("lr", "weight_decay", "momentum", "grad_scale", "nesterov", "sampled"),
    ),
    "step_dense": ("grads", "weights", "out", "lr", "weight_decay"),
    "quantize_blocks_": ("codec",),
    "apply_velocity_": ("velocity", "keep"),
    "apply_dgc_": ("velocity", "residual"),
    "sparse_add_": ("x", "subtract"),
    "dense_add_": ("x", "values", "subtract"),
    "sparse_overflow": ("x", "first"),
    "dense_overflow": ("x", "values", "first"),
}
METADATA = ("offsets", "counts", "starts", "indices", "values", "nnz")


class Frame(ctypes.Structure):
    """emulated_ops.cpp's Frame."""

    _fields_ = (
        ("segments", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in METADATA),
        ("chunk", ctypes.c_int64),
    )


class Grads(ctypes.Structure):
    """emulated_ops.cpp's Grads."""

    _fields_ = (("data", ctypes.c_void_p), ("type", ctypes.c_void_p))


def build(target: str, mode: str = "plain", **variables: str) -> Path:
    """Make `target` by tests/simt/Makefile; return where it is. Fails with the compiler's words."""
    if shutil.which("make") is None or shutil.which("g++") is None:
        pytest.skip("needs make and g++")
    folder = Path(variables.setdefault("BUILD", str(HERE.parents[1] / "build" / "simt")), mode)
    settings = [f"{name}={value}" for name, value in variables.items()]
    made = subprocess.run(
        ["make", "-s", "-C", HERE, f"MODE={mode}", "CXX=g++", *settings, target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return folder / target


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))


def _segments(tensors: Sequence[Tensor], offsets: Tensor) -> list[Tensor]:
    bounds = offsets.tolist()
    if len(tensors) == 1 and tensors[0].numel() == bounds[-1]:
        return [tensors[0][a:b] for a, b in pairwise(bounds)]
    return list(tensors)


def _argument(value: Any, offsets: Tensor) -> Any:
    if isinstance(value, list):
        return _pointers(_segments(value, offsets))
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, bool):
        return ctypes.c_bool(value)
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_double(value)


def _gradients(grads: Sequence[Tensor], offsets: Tensor) -> tuple[Grads, list[Any]]:
    """The struct, and what it points to."""
    parts = _segments(grads, offsets)
    data = _pointers(parts)
    types = (ctypes.c_int32 * len(parts))(*(GRADIENT_TYPE[g.dtype] if g.numel() else 0 for g in parts))
    return Grads(ctypes.addressof(data), ctypes.addressof(types)), [data, types]


@pytest.fixture(scope="session")
def emulated(made: Callable[..., Path]) -> Callable[..., None]:
    """Run an op by name in the emulator: emulated(name, operands by the schema's names, seed, chunk)."""
    library = ctypes.CDLL(str(made("emulated_ops.so")))

    def call(name: str, operands: dict[str, Any], seed: int = 0, chunk: int = 1024) -> None:
        library.emulate(ctypes.c_uint64(seed))
        function = getattr(library, f"emulated_{name}")
        function.restype = ctypes.c_char_p
        if name == "quantize_":
            values = operands["values"]
            arguments = [values.data_ptr(), values.numel(), operands["codec"]]
            error = function(*map(ctypes.c_int64, arguments))
        else:
            offsets = operands["offsets"]
            metadata = (operands[key].data_ptr() if key in operands else None for key in METADATA)
            frame = Frame(offsets.numel() - 1, *metadata, chunk)
            rest = [_argument(operands[key], offsets) for key in CALLS[name] if key != "grads"]
            if "grads" in operands:
                grads, _alive = _gradients(operands["grads"], offsets)
                rest.insert(0, ctypes.byref(grads))
            error = function(ctypes.byref(frame), *rest)
        assert error is None, error.decode()

    return call


def _wanted(items: Sequence[pytest.Item]) -> dict[tuple[str, str], None]:
    """Return the (program, mode) that tests are going to ask for, first what is asked for first."""
    wanted: dict[tuple[str, str], None] = {}
    for item in items:
        if "emulated" in getattr(item, "fixturenames", ()):
            wanted["emulated_ops.so", "plain"] = None
        elif isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            parameters = item.callspec.params
            if "mode" in parameters:
                wanted[parameters.get("program", "test_emulator"), parameters["mode"]] = None
    return wanted


@pytest.fixture(scope="session")
def made(request: pytest.FixtureRequest) -> Iterator[Callable[..., Path]]:
    """Make a program of tests/simt; all that this session's tests need begins to be compiled, on all cores."""
    pool = ThreadPoolExecutor(os.cpu_count())
    compiling = {wanted: pool.submit(build, *wanted) for wanted in _wanted(request.session.items)}

    def make(target: str, mode: str = "plain", **variables: str) -> Path:
        begun = None if variables else compiling.get((target, mode))
        return build(target, mode, **variables) if begun is None else begun.result()

    yield make
    pool.shutdown(cancel_futures=True)
