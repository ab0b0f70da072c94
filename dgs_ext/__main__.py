# SPDX-License-Identifier: Apache-2.0
"""`python -m dgs_ext`: what was built, for what, and whether it works here."""

from __future__ import annotations

import platform
import sys

import torch

import dgs_ext
from dgs_ext import _capability, self_check
from dgs_ext.errors import DGSError


def rows() -> list[tuple[str, str]]:
    """Return the report's lines as (label, text)."""
    info = dgs_ext.info
    cuda = f"CUDA {info.cuda} for {info.architectures}" if info.cuda else f"none: {info.cuda_reason}"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [
        ("dgs", f"{info.version}, in {dgs_ext.__path__[0]}"),
        ("built with", f"torch {info.torch}, Python {info.python}, {info.compiler}"),
        ("runs on", f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"),
        ("torch ABI", f"stable, torch {info.oldest_torch} and later"),
        ("flags", info.flags),
        ("CPU ops", f"{_variants()}; compiled for {info.instruction_sets}"),
        ("torch's own", f"{_torch_cpu()}, {_threads()}"),
        ("CUDA ops", cuda),
        (
            "CUDA usable",
            "yes" if dgs_ext.cuda_problem is None else dgs_ext.cuda_problem if info.cuda else "no",
        ),
        ("GPUs", ", ".join(gpus) or "none that torch can use"),
    ]


def _variants() -> str:
    return f"{_capability.in_use()} in use, of {', '.join(_capability.available())}"


def _torch_cpu() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def _threads() -> str:
    return f"{torch.get_num_threads()} threads"


def main() -> int:
    """Print the report and the self-check of each device; return 1 if one fails."""
    for label, text in rows():
        print(f"{label + ':':13}{text}")
    usable = torch.cuda.is_available() and dgs_ext.cuda_problem is None
    failed = 0
    for device in ("cpu", "cuda") if usable else ("cpu",):
        try:
            print(f"{'self-check:':13}{device}: {self_check.run(device)}")
        except DGSError as error:
            print(f"{'self-check:':13}{device}: FAILED: {error}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
