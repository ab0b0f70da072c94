# SPDX-License-Identifier: Apache-2.0
"""The build_ext command where there is no torch: metadata and sdists work, compiling says what is missing."""

from setuptools.command import build_ext

from .toolkit import BuildConfigError
from .torch_version import REQUIREMENT


class BuildExt(build_ext.build_ext):
    """Refuses to compile; everything before that is setuptools' own."""

    def run(self) -> None:
        """Say that torch is needed, and the two ways to have it."""
        raise BuildConfigError(
            "compiling dgs needs torch, and none can be imported here. Either install it first, with: pip"
            f" install '{REQUIREMENT}' setuptools ninja, or leave --no-build-isolation away"
        )
