# SPDX-License-Identifier: Apache-2.0
"""What travels beside the trained parameters: a model's buffers (batch-norm statistics) and frozen parameters."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ProtocolError

Spec = Sequence[tuple[str, str, tuple[int, ...]]]


def of(model: nn.Module) -> dict[str, Tensor]:
    """The persistent buffers of `model` by name, those that `state_dict()` would save, shared ones once."""
    saved = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def frozen(model: nn.Module, trained: Collection[str]) -> dict[str, Tensor]:
    """The parameters of `model` that are not among the `trained`, by name."""
    return {n: p for n, p in model.named_parameters() if n not in trained}


def frozen_spec(model: nn.Module, trained: Collection[str]) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of each frozen parameter; floating-point ones travel as float32."""
    return [
        (n, "float32" if p.is_floating_point() else str(p.dtype).removeprefix("torch."), tuple(p.shape))
        for n, p in frozen(model, trained).items()
    ]


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
    """Copies those of `values` that are buffers or parameters of `model` into it."""
    with torch.no_grad():
        for name, tensor in (*of(model).items(), *model.named_parameters()):
            if name in values:
                tensor.copy_(values[name])


class BufferStore:
    """The server's buffers: the latest of every worker, and what they make together.

    Args:
        spec: the buffers.
        values: the server's own, which stand until a worker has sent some.
        policy: "mean" over the workers (integers: the greatest), "first" (the lowest rank's) or "none".
        frozen: the parameters that nobody trains, packed, which every worker is sent once.
    """

    def __init__(
        self, spec: Spec, values: Mapping[str, Tensor], policy: str, frozen: Tensor | None = None
    ) -> None:
        self.spec, self._policy = spec, policy
        self.frozen = torch.empty(0, dtype=torch.uint8) if frozen is None else frozen
        self._lock = threading.Lock()
        self._own = {name: v.detach().cpu().clone() for name, v in values.items()}
        self._latest: dict[int, dict[str, Tensor]] = {}
        self._gone: set[int] = set()  # ranks that died, whose statistics no longer count beside others'

    @property
    def nbytes(self) -> int:
        """Bytes of all that travels here."""
        return sum(sizes(self.spec)) + self.frozen.numel()

    def update(self, rank: int, data: Tensor) -> None:
        """Takes the buffers of a worker. Raises ProtocolError and changes nothing when they do not fit."""
        values = unpack(data, self.spec)
        with self._lock:
            self._latest[rank] = values
            self._gone.discard(rank)

    def forget(self, rank: int) -> None:
        """The worker died: what it sent last counts only as long as there is nothing of another."""
        with self._lock:
            self._gone.add(rank)

    def current(self) -> dict[str, Tensor]:
        """The buffers by the policy."""
        with self._lock:
            ranks = sorted(self._latest.keys() - self._gone) or sorted(self._latest)
            latest = [self._latest[rank] for rank in ranks]
        if not latest or self._policy == "none":
            return self._own
        if self._policy == "first":
            return latest[0]
        return {name: _together([values[name] for values in latest]) for name in self._own}

    def packed(self) -> Tensor:
        return pack(self.current(), self.spec)

    def state_dict(self) -> dict[str, Any]:
        """All that is held, as dicts of tensors."""
        with self._lock:
            return {
                "own": dict(self._own),
                "latest": {rank: dict(values) for rank, values in self._latest.items()},
                "gone": sorted(self._gone),
                "frozen": self.frozen,
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        with self._lock:
            self._own = dict(state["own"])
            self._latest = {int(rank): dict(values) for rank, values in state["latest"].items()}
            self._gone = {int(rank) for rank in state["gone"]}
            self.frozen = state["frozen"]


def _together(values: list[Tensor]) -> Tensor:
    """The mean of those that are finite (all, if none is: a mask of -inf); the greatest of integers and booleans."""
    first = values[0]
    if first.is_complex():
        return torch.stack(values).to(torch.complex128).mean(0).to(first.dtype)
    if first.is_floating_point():
        wide = [v.double() for v in values]
        finite = [v for v in wide if bool(v.isfinite().all())]
        return torch.stack(finite).mean(0).to(first.dtype) if finite else first
    return torch.stack([v.to(torch.int64) for v in values]).amax(0).to(first.dtype)
