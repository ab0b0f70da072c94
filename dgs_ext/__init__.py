# SPDX-License-Identifier: Apache-2.0
"""The compiled part of dgs: ops on torch tensors (CPU, CUDA) and the message packer.

Importing registers the ops as `torch.ops.dgs.*`. Where the CUDA ones cannot be used, `cuda_problem` says why,
and so does the BuildError that a call with CUDA tensors raises. `python -m dgs_ext` prints what was built.
"""

import os
from pathlib import Path

from dgs_ext import _capability, _loader, build_info
from dgs_ext._version import __version__

_folder = Path(__file__).resolve().parent
info: build_info.BuildInfo = build_info.read(_folder)
_loader.load_cpu(_folder, info)
_capability.use_wanted(os.environ)
cuda_problem: str | None = _loader.load_cuda(_folder, info)
_loader.find("_wire", _folder)

__all__ = ["__version__", "cuda_problem", "info"]
