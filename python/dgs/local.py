# SPDX-License-Identifier: Apache-2.0
"""Mode sgd: one process, no server, and torch's own SGD."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim.sgd import sgd

from .config import Settings
from .errors import NonFiniteGradientError

log = logging.getLogger(__name__)


def finite(groups: Sequence[dict[str, Any]], names: Mapping[int, str], settings: Settings) -> bool:
    """Whether every gradient is finite, by the policy of the other modes: raises, or says to skip the step.

    names: of the parameters, by their id
    """
    for number, group in enumerate(groups):
        for i, p in enumerate(group["params"]):
            if p.grad is None or bool(torch.isfinite(p.grad._values() if p.grad.is_sparse else p.grad).all()):
                continue
            name = names.get(id(p), f"parameter {i} of group {number}")
            message = f"the gradient of {name} is not finite; nothing was changed"
            if settings.on_nonfinite == "raise":
                raise NonFiniteGradientError(message, name)
            log.warning("%s: the step is skipped", message)
            return False
    return True


def step(groups: Sequence[dict[str, Any]], state: Any, *, nesterov: bool) -> None:
    """torch.optim.SGD's step; `state` holds each parameter's momentum_buffer."""
    for group in groups:
        params = [p for p in group["params"] if p.grad is not None]
        momenta = [state[p].get("momentum_buffer") for p in params]
        sgd(
            params,
            [p.grad for p in params],
            momenta,
            has_sparse_grad=any(p.grad.is_sparse for p in params),
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
        )
        for p, buffer in zip(params, momenta, strict=True):
            state[p]["momentum_buffer"] = buffer
