# SPDX-License-Identifier: Apache-2.0
"""pip's ways of installing, for real: each compiles the library anew, so they are marked slow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", ".cache", ".*_cache", ".hypothesis", "build", "out", "*.egg-info", "*.so", "build_info.json",
    "__pycache__",
)  # fmt: skip


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Run `command` and return what it printed; a failure shows all of it."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "DGS_CUDA": "0", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path, repository: Path) -> Path:
    """Return a copy of the source tree with nothing built in it."""
    # "build" leaves tests/build out as well, of which nothing is compiled.
    return shutil.copytree(repository, tmp_path / "tree", ignore=NOT_SOURCES)


def assert_wheel_works(wheel: Path, folder: Path) -> None:
    """Install `wheel` beside nothing else and run the self-check of what it holds."""
    target = folder / "site"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel, cwd=folder)
    report = run(sys.executable, "-P", "-m", "dgs_ext", cwd=folder, PYTHONPATH=str(target))
    assert f"in {target}" in report
    assert "self-check:  cpu: 640 of 60000" in report
    assert (target / "dgs" / "py.typed").exists() and (target / "dgs_ext" / "py.typed").exists()
    assert (target / "dgs_ext" / "_wire.pyi").exists()


@pytest.mark.parametrize("isolation", [[], ["--no-build-isolation"]], ids=["isolated", "not isolated"])
def test_pip_wheel_uses_the_installed_torch(tree: Path, tmp_path: Path, isolation: list[str]) -> None:
    log = run(
        sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", *isolation, "-w", tmp_path, ".", cwd=tree
    )
    assert "Downloading torch" not in log and "Using cached torch" not in log
    (wheel,) = tmp_path.glob("dgs-*.whl")
    assert_wheel_works(wheel, tmp_path)


def test_an_sdist_builds(tree: Path, tmp_path: Path) -> None:
    code = f"from dgs_build import backend; backend.build_sdist({str(tmp_path)!r})"
    run(sys.executable, "-c", code, cwd=tree, PYTHONPATH=str(tree / "build_backend"))
    (sdist,) = tmp_path.glob("dgs-*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, sdist,
        cwd=tmp_path)  # fmt: skip
    (wheel,) = tmp_path.glob("dgs-*.whl")
    assert_wheel_works(wheel, tmp_path)


def test_an_editable_install_is_the_tree_itself(tree: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    purelib = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    )
    outer = sysconfig.get_path("purelib")
    (purelib / "outer.pth").write_text(f"import sys; sys.path.insert(0, {outer!r})")
    run(python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-e", ".", cwd=tree)
    report = run(python, "-m", "dgs_ext", cwd=tmp_path)
    assert f"in {tree / 'dgs_ext'}" in report
    first = (tree / "dgs_ext" / "build_info.json").stat().st_mtime_ns
    log = run(python, "setup.py", "build_ext", "--inplace", cwd=tree)
    assert "ninja: no work to do." in log  # an editable install leaves objects that the next build reuses
    assert (tree / "dgs_ext" / "build_info.json").stat().st_mtime_ns > first


def test_a_build_without_cuda_removes_the_cuda_module_of_an_earlier_one(tree: Path) -> None:
    stale = tree / "dgs_ext" / "_cuda.abi3.so"
    foreign = tree / "dgs_ext" / "_wire.cpython-399-x86_64-linux-gnu.so"
    stale.touch()
    foreign.touch()
    run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=tree)
    assert not stale.exists()
    assert foreign.exists()  # another Python's build of the same tree


def test_requirements_in_a_fresh_environment(tree: Path, tmp_path: Path) -> None:
    """The quick start, verbatim; with no torch outside, pip fetches one for the build too."""
    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-r", "requirements.txt", cwd=tree)
    report = run(python, "-m", "dgs_ext", cwd=tree)
    assert "self-check:  cpu: 640 of 60000" in report
    run(python, "-c", "import dgs, torchvision, sklearn, tqdm", cwd=tmp_path)
