# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters per segment, from the optimizer's groups and the density's schedule."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dgs_ext.wire import Codec

from .config import Settings, default
from .errors import ConfigError
from .layout import Layout
from .methods import METHODS, STRATEGIES, Hyper, Strategy
from .schedules import DensitySchedule, check_density

_OF_EXCHANGES = ("exchange_every", "overlap", "flush")
_OF_PULLS = ("density_down", "codec_down", "budget_down")


def defaults(settings: Settings) -> dict[str, Any]:
    """What a group of parameters has where it does not say, besides the learning rate."""
    return {
        "momentum": 0.0,
        "dampening": settings.dampening,
        "weight_decay": 0.0,
        "nesterov": settings.nesterov,
        "maximize": settings.maximize,
        "decoupled_weight_decay": settings.decoupled_weight_decay,
        "density": None,
    }


def check_options(settings: Settings, groups: Sequence[Mapping[str, Any]]) -> None:
    """Raises ConfigError for `clip` where the mode has no use for it, and warns of what it ignores."""
    strategy = STRATEGIES[settings.mode]
    _refuse(strategy, {"clip": settings.clip})
    if "momentum" not in strategy.uses and any(group["momentum"] for group in groups):
        warnings.warn(f"momentum has no part in mode {strategy.name} and is ignored", stacklevel=3)
    warn_of_idle(settings, stacklevel=4)


def warn_of_idle(settings: Settings, stacklevel: int = 3) -> None:
    """Warns of what is set and has no part in the run: at the worker and at the server."""
    ignored = [*_OF_EXCHANGES, *_OF_PULLS] if settings.local else []
    if not settings.local and METHODS[settings.mode].dense:
        ignored += _OF_PULLS
    given = [name for name in (*_OF_EXCHANGES, *_OF_PULLS) if getattr(settings, name) != default(name)]
    for name in given:
        if name in ignored:
            warnings.warn(f"{name} has no part in mode {settings.mode} and is ignored", stacklevel=stacklevel)
    if not ignored and {"budget_down", "density_down"} <= set(given):
        warnings.warn("budget_down has no part beside density_down and is ignored", stacklevel=stacklevel)


def _refuse(strategy: type[Strategy], options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if value and name not in strategy.uses and name in strategy.refuses:
            raise ConfigError(f"{name} is not for mode {strategy.name}: {strategy.refuses[name]}")


def _check_number(name: str, value: object) -> None:
    one = isinstance(value, Tensor) and value.numel() == 1
    if not one and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        raise ConfigError(f"{name} must be a number, or a tensor of one, got {value!r:.80}")


_TORCHS_OWN = ("foreach", "fused", "differentiable", "capturable")  # of torch.optim.SGD, by its saved groups


def check_group(group: Mapping[str, Any], strategy: type[Strategy]) -> None:
    """Raises ConfigError when a hyper-parameter of a group is out of its range, or not for this method."""
    for name in ("lr", "momentum", "weight_decay", "dampening"):
        _check_number(name, group[name])
    lr, momentum, decay, density = (group[k] for k in ("lr", "momentum", "weight_decay", "density"))
    if not 0 <= lr < math.inf:
        raise ConfigError(f"lr must be at least 0 and finite, got {lr}")
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must be in [0, 1), got {momentum}")
    if not 0 <= decay < math.inf:
        raise ConfigError(f"weight_decay must be at least 0 and finite, got {decay}")
    if density is not None:
        check_density(density)
    for name in _TORCHS_OWN:
        if group.get(name):
            raise ConfigError(f"{name} has no meaning here (a step is one pass already): leave it out")
    if not math.isfinite(group["dampening"]):
        raise ConfigError(f"dampening must be finite, got {group['dampening']}")
    _refuse(strategy, {name: group[name] for name in ("dampening", "nesterov", "decoupled_weight_decay")})
    if "dampening" in strategy.uses and group["nesterov"] and (group["dampening"] or not momentum):
        raise ConfigError(
            f"nesterov needs a momentum and no dampening, got momentum {momentum}, "
            f"dampening {group['dampening']}"
        )


Row = tuple[float, float, float, float, bool, tuple[float, bool]]


class Hypers:
    """Makes a step's Hyper; tensors are made anew only when a value in the groups has changed.

    Args:
        layout: the segments.
        parameters: of the segments, in their order.
        groups: the optimizer's param_groups, which say what belongs to which and the initial learning rates.
        schedule: the density of groups that set none.
        strategy: the method, which may refuse an option.
        codec: of the values that are pushed.
    """

    def __init__(
        self,
        layout: Layout,
        parameters: Sequence[Tensor],
        groups: Sequence[Mapping[str, Any]],
        schedule: DensitySchedule,
        strategy: type[Strategy],
        codec: Codec = Codec.FLOAT32,
    ) -> None:
        self._layout, self._schedule, self._strategy, self._codec = layout, schedule, strategy, codec
        number = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
        self._group_of = torch.tensor([number[id(p)] for p in parameters])
        self.first_lr = [float(group["lr"]) for group in groups]
        self._known: tuple[object, Hyper] | None = None
        self._counted: tuple[list[float], Tensor] | None = None
        self._sparse = ~torch.tensor(layout.whole)
        self._sparse_numel = int(layout.offsets.diff()[self._sparse].sum())

    def at(self, groups: Sequence[Mapping[str, Any]], version: int, workers: int) -> Hyper:
        """The hyper-parameters of `groups` at a server version with so many active workers.

        Raises ConfigError when a value set since, or the schedule's density, is out of its range.
        """
        try:
            rows = [self._row(i, g, version) for i, g in enumerate(groups)]
        except (TypeError, ValueError, RuntimeError):
            for group in groups:
                check_group(group, self._strategy)  # says which value it is
            raise
        if self._known is None or self._known[0] != (rows, workers):
            for group in groups:
                check_group(group, self._strategy)
            self._known = (rows, workers), self._make(rows, workers)
        return self._known[1]

    def _row(self, number: int, group: Mapping[str, Any], version: int) -> Row:
        """A group's values as a step takes them, and what else `check_group` looks at."""
        sign = -1.0 if group["maximize"] else 1.0
        return (
            sign * float(group["lr"]),
            float(group["momentum"]),
            sign * float(group["weight_decay"]),
            self._density(number, group, version),
            bool(group["nesterov"]),
            (group["dampening"], group["decoupled_weight_decay"]),
        )

    def density(self, hyper: Hyper) -> float:
        """The fraction that `hyper` sends of the tensors that are not sent whole (1 if all are)."""
        total = self._sparse_numel
        return int(hyper.counts[self._sparse].sum()) / total if total else 1.0

    def _density(self, number: int, group: Mapping[str, Any], version: int) -> float:
        if group["density"] is not None:
            return float(group["density"])
        first = float(group.get("initial_lr", self.first_lr[number]))
        density = self._schedule(version, float(group["lr"]) / first if first else 1.0)
        return check_density(density, f"the schedule's density at version {version}")

    def _make(self, rows: list[Row], workers: int) -> Hyper:
        lr, momentum, decay = (
            torch.tensor([row[column] for row in rows], dtype=torch.float32)[self._group_of]
            for column in range(3)
        )
        nesterov = {row[4] for row in rows}
        if len(nesterov) > 1:
            raise ConfigError(f"nesterov must be the same in all groups in mode {self._strategy.name}")
        counts = self._counts([row[3] for row in rows])
        return Hyper(lr, momentum, decay, counts, workers, nesterov.pop(), self._codec)

    def _counts(self, densities: list[float]) -> Tensor:
        """k per segment, remembered: a schedule of the learning rate alone changes none."""
        if self._counted is None or self._counted[0] != densities:
            per_segment = [densities[g] for g in self._group_of.tolist()]
            self._counted = densities, self._layout.counts(per_segment)
        return self._counted[1]
