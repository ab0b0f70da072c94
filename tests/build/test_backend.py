# SPDX-License-Identifier: Apache-2.0
"""The in-tree backend: when it asks for a torch, what it shows the build, and what needs no torch at all."""

from __future__ import annotations

import os
import site as site_module
import sys
import tomllib
from pathlib import Path

import pytest
from setuptools import Distribution

from dgs_build import backend, no_torch, outer_torch, torch_version
from dgs_build.toolkit import BuildConfigError


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that takes the place of the outer environment's site-packages."""
    monkeypatch.setattr(outer_torch, "folders", lambda: [str(tmp_path)])
    return tmp_path


def environment(folder: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """Make this process look like a virtual environment in `folder`."""
    (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = {system}\n")
    monkeypatch.setattr(sys, "prefix", str(folder))
    monkeypatch.setattr(sys, "base_prefix", "/base")
    monkeypatch.setattr(site_module, "PREFIXES", [str(folder)])


def test_an_isolated_environment_is_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(tmp_path, monkeypatch, "false")
    assert outer_torch.folders() and all(folder.startswith(str(tmp_path)) for folder in outer_torch.folders())


def test_an_environment_that_sees_the_system_has_its_folders_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(tmp_path, monkeypatch, "true")
    first, *others = outer_torch.folders()
    assert first.startswith(str(tmp_path))
    assert any(folder.startswith("/base/") for folder in others)


def install(site: Path, version: str) -> None:
    info = site / f"torch-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")


def test_without_an_outer_torch_one_is_asked_for(site: Path) -> None:
    assert backend.get_requires_for_build_wheel() == ["torch>=2.10", "numpy"]
    assert backend.get_requires_for_build_editable() == ["torch>=2.10", "numpy"]


@pytest.mark.parametrize("version", ["2.10.0", "2.15.0+cu132", "3.0"])
def test_an_outer_torch_is_used(site: Path, version: str) -> None:
    install(site, version)
    assert backend.get_requires_for_build_wheel() == []
    assert backend.get_requires_for_build_editable() == []


def test_an_outer_torch_that_is_too_old_is_not_used(site: Path) -> None:
    install(site, "2.9.1")
    assert backend.get_requires_for_build_wheel() == ["torch>=2.10", "numpy"]


def test_an_sdist_needs_no_torch(site: Path) -> None:
    assert backend.get_requires_for_build_sdist() == []


def test_the_outer_torch_is_visible_only_while_building(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "2.15.0")
    monkeypatch.setenv("PYTHONPATH", "/kept")
    path = list(sys.path)
    with outer_torch.visible():
        assert sys.path == [*path, str(site)]  # last: what isolation installed goes first
        assert os.environ["PYTHONPATH"] == os.pathsep.join(("/kept", str(site)))
    assert sys.path == path
    assert os.environ["PYTHONPATH"] == "/kept"


def test_nothing_is_changed_without_an_outer_torch(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with outer_torch.visible():
        assert "PYTHONPATH" not in os.environ
        assert str(site) not in sys.path


def test_too_old_names_both_versions_and_the_cure() -> None:
    words = torch_version.too_old("2.9.1+cpu")
    assert words is not None
    assert "torch>=2.10" in words and "2.9.1+cpu" in words and "pip install --upgrade" in words
    assert torch_version.too_old("2.10.0a0") is None


def test_the_requirement_is_the_one_in_the_metadata(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert torch_version.REQUIREMENT in project["dependencies"]


def test_the_abi_target_is_the_oldest_torch() -> None:
    assert torch_version.TORCH_TARGET_VERSION == "0x020a000000000000"


def test_compiling_without_torch_says_what_to_do() -> None:
    with pytest.raises(BuildConfigError, match=r"pip install 'torch>=2\.10' setuptools ninja"):
        no_torch.BuildExt(Distribution()).run()
