# SPDX-License-Identifier: Apache-2.0
"""What the modes of one process, without a server, share with the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

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
