# SPDX-License-Identifier: Apache-2.0
"""What an optimizer's state_dict holds of a worker: its method's state by parameter, and its counters."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor

from .errors import ConfigError
from .replica import Replica

MASTER = "master"  # float32, of a parameter in half precision
COUNTERS = "session"  # the key beside torch's own "state" and "param_groups"


def export(replica: Replica, state: MutableMapping[Any, dict[str, Tensor]]) -> None:
    """Adds copies of the method's state to an optimizer's `state`, which is by parameter."""
    for name in replica.method.buffers():
        for p, part in replica.state_of(name):
            state.setdefault(p, {})[name] = part.clone()
    for p, master in zip(replica.parameters, replica.weights.masters, strict=True):
        if p.dtype != master.dtype:
            state.setdefault(p, {})[MASTER] = master.view(p.shape).clone()


def parts(
    replica: Replica, groups: Sequence[Mapping[str, Any]], state: Mapping[int, Mapping[str, Tensor]]
) -> list[tuple[Tensor, Tensor | None]]:
    """Each part of the method's state beside what was saved of it.

    Args:
        groups: the optimizer's, whose parameters are numbered in this order.
        state: of a saved state_dict, by number.

    Raises ConfigError for a part of another shape than its parameter's.
    """
    parameters = [p for group in groups for p in group["params"]]
    _check_shapes(parameters, state)
    numbers = {id(p): i for i, p in enumerate(parameters)}
    return [
        (part, state.get(numbers[id(p)], {}).get(name))
        for name in replica.method.reserve({name for saved in state.values() for name in saved})
        for p, part in replica.state_of(name)
    ]


def _check_shapes(parameters: Sequence[Tensor], state: Mapping[int, Mapping[str, Tensor]]) -> None:
    for number, saved in state.items():
        for name, part in saved.items():
            shape = parameters[number].shape
            if isinstance(part, Tensor) and part.shape != shape:
                raise ConfigError(
                    f"load_state_dict: {name} of parameter {number} must have shape {tuple(shape)}, "
                    f"got {tuple(part.shape)}"
                )


def load_masters(
    replica: Replica, groups: Sequence[Mapping[str, Any]], state: Mapping[int, Mapping[str, Tensor]]
) -> None:
    """Takes the saved float32 masters of parameters in half precision that hold what was saved with them."""
    numbers = {id(p): i for i, p in enumerate(p for group in groups for p in group["params"])}
    for segment, p in enumerate(replica.parameters):
        master = state.get(numbers[id(p)], {}).get(MASTER)
        if master is not None and master.shape == p.shape:
            replica.weights.restore(segment, master)


def load(found: Sequence[tuple[Tensor, Tensor | None]]) -> None:
    """Copies what was saved, float32 as it was; what was not starts from zero."""
    for part, saved in found:
        part.zero_() if saved is None else part.copy_(saved)


def move(source: Replica, target: Replica) -> None:
    """Copies the method's state, and the counters, to a replica that has the same parameters and perhaps more."""
    names = source.method.buffers()
    target.method.reserve(names)
    for name in names:
        held = {id(p): part for p, part in source.state_of(name)}
        for p, part in target.state_of(name):
            if id(p) in held:
                part.copy_(held[id(p)])
    target.accumulated = source.accumulated
    target.method.numbers = dict(source.method.numbers)
