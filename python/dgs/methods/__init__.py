# SPDX-License-Identifier: Apache-2.0
"""The methods by name. A new one is a file beside these and a line here.

`sgd`, the single-node mode, exchanges nothing and is torch's own functional: see dgs/optimizer.py.
"""

from __future__ import annotations

from .asgd import ASGD
from .base import Hyper, Method
from .dgc import DGC
from .dgs import DGS
from .gd import GradientDropping

METHODS: dict[str, type[Method]] = {m.name: m for m in (DGS, ASGD, GradientDropping, DGC)}
LOCAL = "sgd"
ALIASES = {"gradient_sgd": "dgs", "aji": "gd"}
MODES = (*METHODS, LOCAL)

__all__ = ["ALIASES", "LOCAL", "METHODS", "MODES", "Hyper", "Method"]
