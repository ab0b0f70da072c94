# SPDX-License-Identifier: Apache-2.0
"""Deep Gradient Compression (Lin et al., arXiv 1712.01887)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgs_ext import ops
from dgs_ext.ops import Selection

from .. import memory
from ..layout import Layout
from .base import Hyper
from .sparse import SparseMethod

if TYPE_CHECKING:
    from ..config import Settings


class DGC(SparseMethod):
    """u = m·u + g;  r = r + lr·u;  q = top(r);  r = r - q;  u = 0 where sent (momentum factor masking).

    The residual is kept in units of the update (lr·u; the paper accumulates before the learning rate), so that a
    change of lr leaves what is held back as it was. Segments sent whole keep u. With hyper.nesterov r takes
    lr·(g + m·u) instead of lr·u.

    Args:
        sampled: select by a sampled threshold, with counts that float, instead of exactly.
        clip: the gradient's global norm is clipped to clip/√workers first; None does not clip.
        workers: for the clipping; None takes the number active, as the last reply said.
    """

    name = "dgc"
    uses = frozenset({"momentum", "nesterov", "clip"})

    def __init__(
        self,
        layout: Layout,
        device: torch.device,
        *,
        sampled: bool = False,
        clip: float | None = None,
        workers: int | None = None,
    ) -> None:
        super().__init__(layout, device, sampled=sampled)
        self.clip, self.workers = clip, workers
        self._velocity, self._velocity_next, self._residual, self._residual_next = (
            memory.zeros(layout.numel, device) for _ in range(4)
        )

    @classmethod
    def create(cls, layout: Layout, device: torch.device, settings: Settings) -> DGC:
        return cls(
            layout, device, sampled=settings.sampled, clip=settings.clip, workers=settings.clip_workers
        )

    def _grad_scale(self, grads: Sequence[Tensor], workers: int) -> float:
        if self.clip is None:
            return 1.0
        norms = [torch.linalg.vector_norm(g, dtype=torch.float64) for g in grads if g.numel()]
        norm = float(torch.stack(norms).norm()) if norms else 0.0  # float64: squares of large floats overflow
        limit = self.clip / math.sqrt(self.workers or workers)
        return limit / norm if norm > limit and math.isfinite(norm) else 1.0

    def compute(
        self, grads: Sequence[Tensor], weights: Sequence[Tensor], hyper: Hyper, out: Selection
    ) -> None:
        ops.push_dgc(
            grads,
            weights,
            [self._velocity],
            [self._residual],
            [self._velocity_next],
            [self._residual_next],
            hyper.lr,
            hyper.weight_decay,
            hyper.momentum,
            self.layout.offsets,
            hyper.counts,
            out,
            hyper.codec,
            grad_scale=self._grad_scale(grads, hyper.workers),
            nesterov=hyper.nesterov,
            sampled=self.sampled,
        )

    def swap(self) -> None:
        self._velocity, self._velocity_next = self._velocity_next, self._velocity
        self._residual, self._residual_next = self._residual_next, self._residual

    def buffers(self) -> dict[str, Tensor]:
        return {"velocity": self._velocity, "residual": self._residual}
