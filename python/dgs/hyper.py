# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters per segment, from the optimizer's groups and the density's schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .layout import Layout
from .methods import Hyper
from .schedules import DensitySchedule


class Hypers:
    """Makes a step's Hyper; tensors are made anew only when a value in the groups has changed.

    Args:
        layout: the segments.
        parameters: of the segments, in their order.
        groups: the optimizer's param_groups, which say what belongs to which and the initial learning rates.
        schedule: the density of groups that set none.
    """

    def __init__(
        self,
        layout: Layout,
        parameters: Sequence[Tensor],
        groups: Sequence[Mapping[str, Any]],
        schedule: DensitySchedule,
    ) -> None:
        self._layout, self._schedule = layout, schedule
        number = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
        self._group_of = [number[id(p)] for p in parameters]
        self._first_lr = [float(group["lr"]) for group in groups]
        self._known: tuple[object, Hyper] | None = None

    def at(self, groups: Sequence[Mapping[str, Any]], version: int, workers: int) -> Hyper:
        """The hyper-parameters of `groups` at a server version with so many active workers."""
        rows = [
            (float(g["lr"]), float(g["momentum"]), float(g["weight_decay"]), self._density(i, g, version))
            for i, g in enumerate(groups)
        ]
        if self._known is None or self._known[0] != (rows, workers):
            self._known = (rows, workers), self._make(rows, workers)
        return self._known[1]

    def density(self, hyper: Hyper) -> float:
        """The fraction that `hyper` sends of the tensors that are not sent whole (1 if all are)."""
        sparse = [s for s, whole in enumerate(self._layout.whole) if not whole]
        total = sum(self._layout.segments[s].numel for s in sparse)
        return sum(int(hyper.counts[s]) for s in sparse) / total if total else 1.0

    def _density(self, number: int, group: Mapping[str, Any], version: int) -> float:
        if group["density"] is not None:
            return float(group["density"])
        first = float(group.get("initial_lr", self._first_lr[number]))
        return self._schedule(version, float(group["lr"]) / first if first else 1.0)

    def _make(self, rows: list[tuple[float, float, float, float]], workers: int) -> Hyper:
        per_segment = [rows[g] for g in self._group_of]
        lr, momentum, decay, density = (list(column) for column in zip(*per_segment, strict=True))
        return Hyper(
            lr=torch.tensor(lr),
            momentum=torch.tensor(momentum),
            weight_decay=torch.tensor(decay),
            counts=self._layout.counts(density),
            workers=workers,
        )
