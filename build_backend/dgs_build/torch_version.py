# SPDX-License-Identifier: Apache-2.0
"""Which torch the build accepts; the one place where the oldest version is written in code."""

from __future__ import annotations

import re

OLDEST_TORCH = (2, 10)
REQUIREMENT = "torch>={}.{}".format(*OLDEST_TORCH)
# Major and minor in the two top bytes. torch's headers then offer nothing newer than this, so that one binary
# works with this torch and every later one.
TORCH_TARGET_VERSION = "0x{:02x}{:02x}000000000000".format(*OLDEST_TORCH)


def too_old(version: str) -> str | None:
    """Say why `version` of torch cannot be built against, or return None when it can."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) >= OLDEST_TORCH:
        return None
    return (
        f"dgs needs {REQUIREMENT} (the first with the stable ABI it is compiled for), but torch {version} is"
        f" installed here. Run: pip install --upgrade '{REQUIREMENT}'"
    )
