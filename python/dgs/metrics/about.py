# SPDX-License-Identifier: Apache-2.0
"""What a run is told by: settings, versions, machine and model."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import asdict
from typing import Any

import torch

import dgs_ext as extension

from ..config import Settings

_SECRET = re.compile(r"token|secret|password|passwd|key|credential", re.IGNORECASE)


def about(settings: Settings, args: object | None, sizes: list[int], began: float) -> dict[str, Any]:
    """Everything as JSON takes it; of `args` the numbers and texts, and nothing whose name is that of a secret.

    Args:
        sizes: elements of each parameter that is trained.
        began: seconds since 1970.
    """
    chosen = {k: v for k, v in asdict(settings).items() if not _SECRET.search(k)}
    given = vars(args) if hasattr(args, "__dict__") else {}
    return {
        "format": 1,
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)),
        "time": began,
        "settings": chosen,
        "arguments": {
            k: v if isinstance(v, bool | int | float) else str(v)
            for k, v in given.items()
            if v is not None and k not in chosen and not k.startswith("_") and not _SECRET.search(k)
            if isinstance(v, bool | int | float | str | os.PathLike)
        },
        "versions": {
            __name__.partition(".")[0]: extension.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "system": platform.platform(terse=True),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "model": {"parameters": sum(sizes), "tensors": len(sizes), "dense_bytes": 4 * sum(sizes)},
    }
