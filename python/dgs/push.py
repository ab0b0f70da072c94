# SPDX-License-Identifier: Apache-2.0
"""A push on its way from a method's step to the wire and back to the method's commit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgs_ext.ops import Selection

from .methods import Hyper


@dataclass(frozen=True, slots=True)
class Push:
    """A step that has been computed and not yet acknowledged."""

    hyper: Hyper
    on_wire: Selection | Tensor  # on the CPU
    held: int  # the version of the weights that its gradient was computed at
    digest: tuple[int, str] = (0, "")
    after: int = 0  # this worker's pushes that were applied before it


def packed(update: Selection | Tensor, hyper: Hyper, held: int) -> Push:
    """What a method's step or flush computed, ready for the wire."""
    on_wire = update.to_cpu() if isinstance(update, Selection) else update.cpu()
    return Push(hyper, on_wire, held)


def gradient(p: Tensor) -> Tensor:
    """The gradient as an op takes it: flat and contiguous; empty for none."""
    grad = p.grad
    if grad is None:
        return torch.empty(0, device=p.device)
    if grad.is_sparse:
        grad = grad.to_dense()
    return grad.contiguous().view(-1)
