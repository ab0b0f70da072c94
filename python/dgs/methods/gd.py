# SPDX-License-Identifier: Apache-2.0
"""Gradient dropping (Aji & Heafield, arXiv 1704.05021)."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Hyper
from .sparse import VelocityMethod


class GradientDropping(VelocityMethod):
    """r = r + lr·g;  q = top(r);  r = r - q: `dgs` without momentum."""

    name = "gd"
    state_name = "residual"
    uses = frozenset()

    def keep(self, hyper: Hyper) -> Tensor:
        return torch.ones_like(hyper.momentum)
