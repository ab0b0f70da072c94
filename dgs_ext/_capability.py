# SPDX-License-Identifier: Apache-2.0
"""Which of the instruction sets that the CPU ops were compiled for is used."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dgs_ext.errors import BuildError

VARIABLE = "DGS_CPU_CAPABILITY"
NAMES = ("portable", "avx2", "avx512")  # in the order of csrc/cpu/capability.cpp


def available() -> list[str]:
    """Return the names of those that this machine can run."""
    _, usable = torch.ops.dgs.cpu_capability(-1)
    return [name for i, name in enumerate(NAMES) if usable >> i & 1]


def in_use() -> str:
    """Return the name of the one that the ops use."""
    return NAMES[torch.ops.dgs.cpu_capability(-1)[0]]


def use(name: str) -> None:
    """Use `name` from now on, in the whole process; no op may be running.

    Raises BuildError for a name that is unknown, or that this machine cannot run.
    """
    usable = available()
    if name not in usable:
        known = "it is none of" if name not in NAMES else "this machine cannot run it; dgs knows"
        raise BuildError(
            f"{VARIABLE}={name}: {known} {', '.join(NAMES)}; use one of {', '.join(usable)}, or unset it for"
            " the best"
        )
    torch.ops.dgs.cpu_capability(NAMES.index(name))


def use_wanted(environment: Mapping[str, str]) -> None:
    """Use what DGS_CPU_CAPABILITY names; where it is unset or empty, the best is in use already.

    Raises BuildError as `use` does.
    """
    name = environment.get(VARIABLE, "")
    if name:
        use(name)
