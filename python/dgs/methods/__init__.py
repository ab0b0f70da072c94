# SPDX-License-Identifier: Apache-2.0
"""The methods by name. A new one is a file beside these and a line here, or a user's own and `register`."""

from __future__ import annotations

from collections import ChainMap

from .asgd import ASGD
from .base import Hyper, LocalMethod, Method, Strategy
from .dgc import DGC
from .dgs import DGS
from .gd import GradientDropping
from .sgd import SGD
from .sparse import SparseMethod, VelocityMethod

METHODS: dict[str, type[Method]] = {m.name: m for m in (DGS, ASGD, GradientDropping, DGC)}
LOCAL_METHODS: dict[str, type[LocalMethod]] = {SGD.name: SGD}
STRATEGIES: ChainMap[str, type[Strategy]] = ChainMap(LOCAL_METHODS, METHODS)  # type: ignore[arg-type]
MODES = STRATEGIES.keys()  # a view: it follows what is registered
ALIASES = {"gradient_sgd": "dgs", "aji": "gd"}


def register(method: type[Method]) -> type[Method]:
    """Makes `method` a mode of its name, in this process; the server's and every worker's must do so.

    Returns it, so that this can decorate a class. Raises ValueError when the name is another method's.
    """
    if method.name in ALIASES or STRATEGIES.get(method.name, method) is not method:
        raise ValueError(
            f"register: name must be a new one, got {method.name!r}; there are {', '.join(MODES)}"
        )
    METHODS[method.name] = method
    return method


__all__ = [
    "ALIASES",
    "LOCAL_METHODS",
    "METHODS",
    "MODES",
    "STRATEGIES",
    "Hyper",
    "LocalMethod",
    "Method",
    "SparseMethod",
    "Strategy",
    "VelocityMethod",
    "register",
]
