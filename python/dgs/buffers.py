# SPDX-License-Identifier: Apache-2.0
"""A model's buffers (batch-norm statistics) as bytes, and their average over the workers."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .errors import ProtocolError

Spec = Sequence[tuple[str, str, tuple[int, ...]]]


def of(model: nn.Module) -> dict[str, Tensor]:
    """The persistent buffers of `model` by name, those that `state_dict()` would save, shared ones once."""
    saved = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def spec(model: nn.Module) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of each buffer, in order."""
    return [(n, str(b.dtype).removeprefix("torch."), tuple(b.shape)) for n, b in of(model).items()]


def sizes(spec: Spec) -> list[int]:
    """Bytes of each buffer."""
    return [getattr(torch, dtype).itemsize * math.prod(shape) for _, dtype, shape in spec]


def pack(values: Mapping[str, Tensor], spec: Spec) -> Tensor:
    """The buffers' bytes one after another, uint8 [sum of sizes], on the CPU."""
    parts = [
        values[name].detach().to("cpu", getattr(torch, dtype)).contiguous().view(-1).view(torch.uint8)
        for name, dtype, _ in spec
    ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)


def unpack(data: Tensor, spec: Spec) -> dict[str, Tensor]:
    """What `pack` wrote; ProtocolError when the length is another."""
    lengths = sizes(spec)
    if data.numel() != sum(lengths):
        raise ProtocolError(f"buffers of {data.numel()} bytes came, {sum(lengths)} were expected")
    return {
        name: part.clone().view(getattr(torch, dtype)).view(shape)
        for (name, dtype, shape), part in zip(spec, data.split(lengths), strict=True)
    }


def load(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copies `values` into the buffers of `model`."""
    with torch.no_grad():
        for name, buffer in of(model).items():
            buffer.copy_(values[name])


class BufferStore:
    """The server's buffers: the latest of every worker, and what they make together.

    Args:
        spec: the buffers.
        values: the server's own, which stand until a worker has sent some.
        policy: "mean" over the workers (integers: the greatest), "first" (the lowest rank's) or "none".
    """

    def __init__(self, spec: Spec, values: Mapping[str, Tensor], policy: str) -> None:
        self.spec, self._policy = spec, policy
        self._lock = threading.Lock()
        self._own = {name: v.detach().cpu().clone() for name, v in values.items()}
        self._latest: dict[int, dict[str, Tensor]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(sizes(self.spec))

    def update(self, rank: int, data: Tensor) -> None:
        """Takes the buffers of a worker. Raises ProtocolError and changes nothing when they do not fit."""
        values = unpack(data, self.spec)
        for name, value in values.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise ProtocolError(f"buffer {name} of worker {rank} is not finite")
        with self._lock:
            self._latest[rank] = values

    def current(self) -> dict[str, Tensor]:
        """The buffers by the policy."""
        with self._lock:
            latest = [self._latest[rank] for rank in sorted(self._latest)]
        if not latest or self._policy == "none":
            return self._own
        if self._policy == "first":
            return latest[0]
        return {name: _together([values[name] for values in latest]) for name in self._own}

    def packed(self) -> Tensor:
        return pack(self.current(), self.spec)


def _together(values: list[Tensor]) -> Tensor:
    stacked = torch.stack(values)
    if stacked.is_floating_point():
        return stacked.double().mean(0).to(stacked.dtype)
    return stacked.amax(0)
