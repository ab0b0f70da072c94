# SPDX-License-Identifier: Apache-2.0
"""A binary that does not fit says so in one sentence, with both versions and a command to run."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dgs_ext
from dgs_ext import _loader, build_info
from dgs_ext.errors import BuildError

INFO = dataclasses.replace(dgs_ext.info, torch="2.15.0+cu132", cuda="13.0")
REBUILD = "pip install --no-build-isolation --no-deps --force-reinstall ."


def broken(folder: Path, module: str) -> Path:
    """Compile a module that needs a symbol that no torch has."""
    compiler = shutil.which("c++") or shutil.which("g++")
    assert compiler, "the library was compiled, so there is a compiler"
    source = folder / "broken.cpp"
    source.write_text('extern "C" int torch_of_the_future();\nint unused = torch_of_the_future();\n')
    target = folder / f"{module}.abi3.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return target


def assert_one_sentence(words: str) -> None:
    assert "undefined symbol" not in words
    assert "\n" not in words


def test_cpu_module_with_a_missing_symbol(tmp_path: Path) -> None:
    broken(tmp_path, "_cpu")
    with pytest.raises(BuildError) as caught:
        _loader.load_cpu(tmp_path, INFO)
    words = str(caught.value)
    assert_one_sentence(words)
    assert "2.15.0+cu132" in words and torch.__version__ in words and REBUILD in words
    assert caught.value.__cause__ is None and caught.value.__suppress_context__  # nor in the traceback


def test_cpu_module_that_is_no_library_says_what_the_loader_said(tmp_path: Path) -> None:
    (tmp_path / "_cpu.abi3.so").write_bytes(b"not a library")
    with pytest.raises(BuildError, match="cannot be loaded by torch .*(too short|ELF)"):
        _loader.load_cpu(tmp_path, INFO)


def test_torch_older_than_the_build_allows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(BuildError) as caught:
        _loader.load_cpu(tmp_path, INFO)
    words = str(caught.value)
    assert_one_sentence(words)
    assert "needs torch 2.10 or newer, and this is torch 2.9.1" in words
    assert "pip install --upgrade 'torch>=2.10'" in words


def test_module_of_another_python(tmp_path: Path) -> None:
    (tmp_path / "_wire.cpython-399-x86_64-linux-gnu.so").touch()
    with pytest.raises(BuildError) as caught:
        _loader.find("_wire", tmp_path)
    words = str(caught.value)
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in words
    assert "only _wire.cpython-399" in words and REBUILD in words


def test_source_folder_that_was_not_built(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"one folder above: pip install --no-build-isolation -e \."):
        build_info.read(tmp_path)


def test_unbuilt_copy_of_the_package_fails_on_import(tmp_path: Path, repository: Path) -> None:
    copy = shutil.copytree(
        repository / "dgs_ext", tmp_path / "dgs_ext", ignore=shutil.ignore_patterns("*.so", "build_info.json")
    )
    run = subprocess.run(
        [sys.executable, "-c", "import dgs_ext"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("dgs_ext.errors.BuildError: ") and str(copy) in last


@pytest.mark.parametrize(
    ("built", "running", "expected"),
    [
        (None, "13.2", "was built without CUDA (DGS_CUDA=0); to build it with CUDA"),
        ("13.0", None, "is a build without CUDA"),
        ("12.8", "13.2", "was built with CUDA 12.8"),
        ("13.0", "13.2", "dgs_ext._cuda is not built for"),
    ],
)
def test_cuda_that_cannot_be_used_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str | None, running: str | None, expected: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", running)
    info = dataclasses.replace(INFO, cuda=built, cuda_reason="DGS_CUDA=0")
    words = _loader._try_cuda(tmp_path, info)
    assert words is not None
    assert_one_sentence(words)
    assert expected in words


def test_cuda_module_with_a_missing_symbol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(tmp_path, "_cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    words = _loader._try_cuda(tmp_path, INFO)
    assert words is not None
    assert_one_sentence(words)
    assert words.startswith("the CUDA module of dgs") and torch.__version__ in words


CALL_WITH_CUDA = """
import torch
torch.version.cuda = "99.0"  # no build fits this one
import dgs_ext
from dgs_ext.errors import BuildError
key = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
try:
    torch.ops.dgs.quantize_.default.redispatch(key, torch.ones(3), 1)
except BuildError as error:
    print(str(error) == dgs_ext.cuda_problem, error)
"""


def test_a_call_with_cuda_tensors_raises_the_reason() -> None:
    run = subprocess.run([sys.executable, "-c", CALL_WITH_CUDA], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("True dgs ")
    assert "uses CUDA 99.0" in run.stdout or "was built without CUDA" in run.stdout


def test_suffixes_are_tried_in_the_order_of_the_interpreter(tmp_path: Path) -> None:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        (tmp_path / f"_cpu{suffix}").touch()
    assert _loader.find("_cpu", tmp_path).name == f"_cpu{importlib.machinery.EXTENSION_SUFFIXES[0]}"
