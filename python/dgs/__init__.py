# SPDX-License-Identifier: Apache-2.0
"""DGS: dual-way gradient sparsification for asynchronous distributed training (arXiv 1910.10929).

init_server(args, net)                                       # rank 0
optimizer = GradientSGD(net.parameters(), lr=0.1, model=net)  # the others
"""

from __future__ import annotations

from . import checkpoint
from .config import Settings
from .device import device
from .errors import DGSError
from .exchange import Traffic
from .layout import Layout
from .methods import MODES
from .optimizer import GradientSGD
from .schedules import Constant, CoupledToLR, WarmUp
from .server import ModelSnapshot, Report, init_server

__version__ = "0.1.0"

__all__ = [
    "MODES",
    "Constant",
    "CoupledToLR",
    "DGSError",
    "GradientSGD",
    "Layout",
    "ModelSnapshot",
    "Report",
    "Settings",
    "Traffic",
    "WarmUp",
    "checkpoint",
    "device",
    "init_server",
]
