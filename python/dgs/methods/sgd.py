# SPDX-License-Identifier: Apache-2.0
"""torch.optim.SGD in one process: what the other methods are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch.optim.sgd import sgd

from .base import LocalMethod


class SGD(LocalMethod):
    """torch's own functional; `state` holds each parameter's momentum_buffer, as torch.optim.SGD's does."""

    name = "sgd"
    uses = frozenset({"momentum", "dampening", "nesterov", "decoupled_weight_decay"})
    refuses: ClassVar[Mapping[str, str]] = {
        "clip": "it is dgc's; call torch.nn.utils.clip_grad_norm_ before step()"
    }

    def step(self, groups: Sequence[dict[str, Any]], state: Any) -> None:
        for group in groups:
            params = [p for p in group["params"] if p.grad is not None]
            momenta = [state[p].get("momentum_buffer") for p in params]
            decay = group["weight_decay"]
            if group["decoupled_weight_decay"]:  # as torch.optim.AdamW does it
                for p in params:
                    p.mul_(1 - group["lr"] * decay)
                decay = 0.0
            sgd(
                params,
                [p.grad for p in params],
                momenta,
                has_sparse_grad=any(p.grad.is_sparse for p in params),
                weight_decay=decay,
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=group["maximize"],
            )
            for p, buffer in zip(params, momenta, strict=True):
                state[p]["momentum_buffer"] = buffer
