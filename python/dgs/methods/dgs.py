# SPDX-License-Identifier: Apache-2.0
"""Dual-way gradient sparsification with SAMomentum (Yan et al., arXiv 1910.10929, algorithm 3)."""

from __future__ import annotations

from torch import Tensor

from .base import Hyper, VelocityMethod


class DGS(VelocityMethod):
    """u = v + lr·g;  q = top(u);  v = u - (1-m)·q: the paper's two-line momentum held in one buffer."""

    name = "dgs"
    state_name = "velocity"

    def keep(self, hyper: Hyper) -> Tensor:
        return (1.0 - hyper.momentum.double()).float()
