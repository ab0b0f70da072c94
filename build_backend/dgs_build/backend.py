# SPDX-License-Identifier: Apache-2.0
"""PEP 517 and 660 hooks: setuptools', with the outer environment's torch where there is one.

See outer_torch.py for why, and docs/building.md for what each way of installing does.
"""

from __future__ import annotations

from typing import Any

from setuptools import build_meta

from . import outer_torch
from .torch_version import REQUIREMENT

Settings = dict[str, Any] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Ask for a torch only where the outer environment has none."""
    return [] if outer_torch.usable(outer_torch.folders()) else [REQUIREMENT, "numpy"]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """Ask for the same as for a wheel."""
    return get_requires_for_build_wheel(config_settings)


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """Ask for nothing: an sdist compiles nothing."""
    return []


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    """Write the metadata; no torch needed."""
    return str(build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings))


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings = None) -> str:
    """Write the metadata; no torch needed."""
    return str(build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings))


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Compile and pack a wheel."""
    with outer_torch.visible():
        return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Compile in place and pack the wheel that points here."""
    with outer_torch.visible():
        return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Pack the sources."""
    return str(build_meta.build_sdist(sdist_directory, config_settings))
