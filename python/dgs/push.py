# SPDX-License-Identifier: Apache-2.0
"""A push on its way from a method's step to the wire and back to the method's commit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgs_ext import ops
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec

from .methods import Hyper


@dataclass(frozen=True, slots=True)
class Push:
    """A step that has been computed and not yet acknowledged."""

    hyper: Hyper
    sent: Selection | Tensor  # quantised, where the method's state lives
    on_wire: Selection | Tensor  # the same on the CPU
    held: int  # the version of the weights that its gradient was computed at
    digest: tuple[int, str] = (0, "")
    after: int = 0  # this worker's pushes that were applied before it


def packed(update: Selection | Tensor, hyper: Hyper, held: int, codec: Codec, offsets: Tensor) -> Push:
    """What a method's step or flush computed, quantised; offsets: of the layout."""
    if isinstance(update, Selection):
        ops.quantize_selection_(update, offsets, int(codec))
        return Push(hyper, update, update.to_cpu(), held)
    if codec != Codec.FLOAT32:  # for that one a method's dense update is ready
        ops.quantize_(update, int(codec))
    return Push(hyper, update, update.cpu(), held)


def gradient(p: Tensor) -> Tensor:
    """The gradient as an op takes it: flat and contiguous; empty for none."""
    grad = p.grad
    if grad is None:
        return torch.empty(0, device=p.device)
    if grad.is_sparse:
        grad = grad.to_dense()
    return grad.contiguous().view(-1)
