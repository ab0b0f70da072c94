# SPDX-License-Identifier: Apache-2.0
"""Which device a worker trains on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch

from . import config

log = logging.getLogger(__name__)


def device(
    args: object | None = None, environ: Mapping[str, str] | None = None, **settings: Any
) -> torch.device:
    """The device of this process: the CPU, or with `cuda` set GPU LOCAL_RANK, else (rank - 1) mod their number.

    Falls back to the CPU with a warning where there is no GPU.

    Args:
        args: any object with attributes named like settings, or None.
        environ: the environment, by default this process's.
        settings: see dgs.config.Settings.
    """
    environ = os.environ if environ is None else environ
    resolved = config.resolve(args, environ, **settings)
    if not resolved.cuda:
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 0:
        log.warning("no CUDA device here: training on the CPU")
        return torch.device("cpu")
    local = environ.get("LOCAL_RANK")
    number = int(local) if local else max(0, (resolved.rank or 1) - 1)
    return torch.device("cuda", number % count)
