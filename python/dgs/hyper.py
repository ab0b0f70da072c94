# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters per segment, from the optimizer's groups and the density's schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError
from .layout import Layout
from .methods import Hyper
from .schedules import DensitySchedule, check_density


def check_group(group: Mapping[str, Any]) -> None:
    """Raises ConfigError when a hyper-parameter of a group is out of its range."""
    lr, momentum, decay, density = (group[k] for k in ("lr", "momentum", "weight_decay", "density"))
    if not 0 <= float(lr) < math.inf:
        raise ConfigError(f"lr must be at least 0 and finite, got {lr}")
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must be in [0, 1), got {momentum}")
    if not 0 <= decay < math.inf:
        raise ConfigError(f"weight_decay must be at least 0 and finite, got {decay}")
    if density is not None:
        check_density(density)


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
        self._group_of = torch.tensor([number[id(p)] for p in parameters])
        self._first_lr = [float(group["lr"]) for group in groups]
        self._known: tuple[object, Hyper] | None = None
        self._counted: tuple[list[float], Tensor] | None = None
        self._sparse = ~torch.tensor(layout.whole)
        self._sparse_numel = int(layout.offsets.diff()[self._sparse].sum())

    def at(self, groups: Sequence[Mapping[str, Any]], version: int, workers: int) -> Hyper:
        """The hyper-parameters of `groups` at a server version with so many active workers.

        Raises ConfigError when a value set since, or the schedule's density, is out of its range.
        """
        rows = [
            (float(g["lr"]), float(g["momentum"]), float(g["weight_decay"]), self._density(i, g, version))
            for i, g in enumerate(groups)
        ]
        if self._known is None or self._known[0] != (rows, workers):
            for group in groups:
                check_group(group)
            self._known = (rows, workers), self._make(rows, workers)
        return self._known[1]

    def density(self, hyper: Hyper) -> float:
        """The fraction that `hyper` sends of the tensors that are not sent whole (1 if all are)."""
        total = self._sparse_numel
        return int(hyper.counts[self._sparse].sum()) / total if total else 1.0

    def _density(self, number: int, group: Mapping[str, Any], version: int) -> float:
        if group["density"] is not None:
            return float(group["density"])
        first = float(group.get("initial_lr", self._first_lr[number]))
        density = self._schedule(version, float(group["lr"]) / first if first else 1.0)
        return check_density(density, f"the schedule's density at version {version}")

    def _make(self, rows: list[tuple[float, float, float, float]], workers: int) -> Hyper:
        lr, momentum, decay = (
            torch.tensor(column, dtype=torch.float32)[self._group_of]
            for column in list(zip(*rows, strict=True))[:3]
        )
        counts = self._counts([row[3] for row in rows])
        return Hyper(lr=lr, momentum=momentum, weight_decay=decay, counts=counts, workers=workers)

    def _counts(self, densities: list[float]) -> Tensor:
        """k per segment, remembered: a schedule of the learning rate alone changes none."""
        if self._counted is None or self._counted[0] != densities:
            per_segment = [densities[g] for g in self._group_of.tolist()]
            self._counted = densities, self._layout.counts(per_segment)
        return self._counted[1]
