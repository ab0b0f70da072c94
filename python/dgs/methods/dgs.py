# SPDX-License-Identifier: Apache-2.0
"""Dual-way gradient sparsification with SAMomentum (Yan et al., arXiv 1910.10929, algorithm 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from .base import Hyper, Method
from .sparse import VelocityMethod


class DGS(VelocityMethod):
    """u = v + lr·g;  q = top(u);  v = u - (1-m)·q: the paper's two-line momentum held in one buffer."""

    name = "dgs"
    uses = frozenset({"momentum"})
    refuses: ClassVar[Mapping[str, str]] = {
        **Method.refuses,
        "nesterov": "v = u - (1-m)·q is SAMomentum for q = u only: with a step that looks ahead, what is sent and "
        "what stays no longer add up",
    }
    state_name = "velocity"

    def keep(self, hyper: Hyper) -> Tensor:
        return (1.0 - hyper.momentum.double()).float()
