# SPDX-License-Identifier: Apache-2.0
"""The decisions of the build, without a compiler: which toolkit, which architectures, which words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dgs_build import toolkit
from dgs_build.toolkit import BuildConfigError, choose_architectures, choose_cuda, find_toolkit

KNOWN = ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1")


@pytest.fixture
def make_toolkit(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that lays out a folder with a toolkit's parts, less the one named."""

    def make(name: str, without: str = "") -> Path:
        home = tmp_path / name
        for part in ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so"):
            if part != without:
                (home / part).parent.mkdir(parents=True, exist_ok=True)
                (home / part).touch(mode=0o755)
        return home

    return make


def version_13(home: Path) -> str:
    return "13.0"


def test_cuda_home_is_taken_and_named(make_toolkit: Callable[..., Path]) -> None:
    home = make_toolkit("cuda")
    choice = choose_cuda({"CUDA_HOME": str(home), "PATH": ""}, "2.15.0", "13.2", version_13)
    assert choice.toolkit == toolkit.Toolkit(home, "13.0")
    assert choice.reason == f"CUDA toolkit 13.0 found in {home} (CUDA_HOME)"


def test_a_wrapper_on_the_path_is_not_taken_for_a_toolkit(make_toolkit: Callable[..., Path]) -> None:
    wrapper = make_toolkit("local", without="include/cuda_runtime.h") / "bin/nvcc"
    found, sentence = find_toolkit({}, str(wrapper), version_13)
    assert found is None or found.home == Path("/usr/local/cuda")
    if found is None:
        assert f"{wrapper.parent.parent} (nvcc on the PATH) has no include/cuda_runtime.h" in sentence


def test_a_link_on_the_path_is_followed(make_toolkit: Callable[..., Path], tmp_path: Path) -> None:
    home = make_toolkit("cuda-13.0")
    link = tmp_path / "bin" / "nvcc"
    link.parent.mkdir()
    link.symlink_to(home / "bin/nvcc")
    found, _ = find_toolkit({}, str(link), version_13)
    assert found is not None and found.home == home


@pytest.mark.parametrize("part", ["bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so"])
def test_a_named_folder_that_lacks_a_part_is_refused_by_that_part(
    make_toolkit: Callable[..., Path], part: str
) -> None:
    home = make_toolkit("cuda", without=part)
    env = {"CUDA_HOME": str(home), "PATH": "", "DGS_CUDA": "1"}
    with pytest.raises(BuildConfigError, match="DGS_CUDA=1, but no CUDA toolkit: ") as caught:
        choose_cuda(env, "2.15.0", "13.2", version_13)
    assert f"{home} (CUDA_HOME) has no {part}" in str(caught.value)
    assert "DGS_CUDA=0" in str(caught.value)  # the way out


def test_everything_looked_at_is_listed() -> None:
    found, sentence = find_toolkit({"CUDA_PATH": "/nowhere/cuda"}, "/elsewhere/bin/nvcc", version_13)
    assert found is None
    assert sentence == "no CUDA toolkit: /nowhere/cuda (CUDA_PATH) has no bin/nvcc"
    places = [str(home) for _, home in toolkit.candidates({}, "/elsewhere/bin/nvcc")]
    assert places == ["/elsewhere", "/usr/local/cuda"]


@pytest.mark.parametrize("wanted", ["1", "auto"])
def test_another_major_version_is_refused_with_both(make_toolkit: Callable[..., Path], wanted: str) -> None:
    env = {"CUDA_HOME": str(make_toolkit("cuda")), "PATH": "", "DGS_CUDA": wanted}
    if wanted == "1":
        with pytest.raises(BuildConfigError) as caught:
            choose_cuda(env, "2.15.0+cu126", "12.6", version_13)
        words = str(caught.value)
    else:
        choice = choose_cuda(env, "2.15.0+cu126", "12.6", version_13)
        assert choice.toolkit is None
        words = choice.reason
    assert "is 13.0" in words and "built with CUDA 12.6" in words and "CUDA 12.x toolkit" in words


def test_a_torch_without_cuda_builds_for_the_cpu(make_toolkit: Callable[..., Path]) -> None:
    env = {"CUDA_HOME": str(make_toolkit("cuda")), "PATH": ""}
    choice = choose_cuda(env, "2.15.0+cpu", None, version_13)
    assert choice.toolkit is None and "torch 2.15.0+cpu is a build without CUDA" in choice.reason
    with pytest.raises(BuildConfigError, match=r"torch 2\.15\.0\+cpu is a build without CUDA"):
        choose_cuda({**env, "DGS_CUDA": "1"}, "2.15.0+cpu", None, version_13)


def test_zero_looks_for_nothing() -> None:
    def never(home: Path) -> str:
        raise AssertionError("DGS_CUDA=0 must not run nvcc")

    assert choose_cuda({"DGS_CUDA": "0"}, "2.15.0", "13.2", never) == toolkit.CudaChoice(None, "DGS_CUDA=0")


def test_another_word_is_refused() -> None:
    with pytest.raises(BuildConfigError, match="DGS_CUDA must be auto, 1 or 0, got 'yes'"):
        choose_cuda({"DGS_CUDA": "yes"}, "2.15.0", "13.2", version_13)


def test_architectures_named_by_the_user_win() -> None:
    chosen = choose_architectures({"TORCH_CUDA_ARCH_LIST": "9.0a"}, [(8, 0)], KNOWN)
    assert chosen == ("9.0a", "TORCH_CUDA_ARCH_LIST")


def test_architectures_of_the_gpus_present() -> None:
    assert choose_architectures({}, [(9, 0), (8, 0), (9, 0)], KNOWN) == ("8.0;9.0+PTX", "GPUs present")


def test_a_gpu_newer_than_nvcc_gets_ptx_of_the_newest() -> None:
    assert choose_architectures({}, [(13, 0)], KNOWN)[0] == "12.1+PTX"


def test_a_gpu_older_than_nvcc_is_refused() -> None:
    with pytest.raises(BuildConfigError, match=r"compiles for 7\.5, .*capability 7\.0"):
        choose_architectures({}, [(7, 0)], KNOWN)


def test_default_architectures_are_those_that_nvcc_knows() -> None:
    chosen, source = choose_architectures({}, [], KNOWN)
    assert chosen == "7.5+PTX;8.0+PTX;8.6+PTX;9.0+PTX;10.0+PTX;12.0+PTX"
    assert source == "default list, no GPU present"
    assert choose_architectures({}, [], ("5.0", "7.0", "7.5", "8.0"))[0] == "7.0+PTX;7.5+PTX;8.0+PTX"
