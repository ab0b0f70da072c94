# SPDX-License-Identifier: Apache-2.0
"""State as JSON and tensors: what is a tensor becomes a name in the JSON, and all else stands there as it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, ConfigError

# What JSON has no other way to say: a tensor, a tuple, a dict with int keys, a Counter, a float that is not finite.
_TENSOR, _TUPLE, _NUMBERED, _COUNTER, _FLOAT = "$tensor", "$tuple", "$numbered", "$counter", "$float"


def flatten(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """What json.dumps takes, and the tensors that it names, contiguous and on the CPU, no two in one storage.

    Raises ConfigError for what is neither a number, string, None or tensor, nor a list, tuple or dict of such.
    """
    tensors: dict[str, Tensor] = {}
    return _described(state, "", tensors), apart(tensors)


def restore(described: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `flatten` was given."""
    if isinstance(described, list):
        return [restore(item, tensors) for item in described]
    if not isinstance(described, dict):
        return described
    kind = next(iter(described), "")
    if not kind.startswith("$"):
        return {key: restore(item, tensors) for key, item in described.items()}
    inner = described[kind]
    if kind == _TENSOR:
        return tensors[inner]
    if kind == _FLOAT:
        return float(inner)
    if kind == _TUPLE:
        return tuple(restore(inner, tensors))
    if kind not in (_NUMBERED, _COUNTER):
        raise CheckpointError(f"the state holds {kind!r}, which this release does not know: use a newer one")
    numbered = {int(key): restore(item, tensors) for key, item in inner.items()}
    return Counter(numbered) if kind == _COUNTER else numbered


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers on the CPU, each in a storage that is its own and no larger, as safetensors wants them."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != own.nbytes:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        found[name] = own
    return found


def _described(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = path
        while name in tensors:  # keys may hold the slash that joins them
            name += "'"
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = [_described(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        kinds = {type(key) for key in value}
        inner = {str(key): _described(item, f"{path}/{key}", tensors) for key, item in value.items()}
        if kinds == {int}:
            return {_COUNTER if isinstance(value, Counter) else _NUMBERED: inner}
        if kinds <= {str} and not any(key.startswith("$") for key in inner):
            return inner
    raise ConfigError(
        f"checkpoint: {path or 'the state'} must be a number, a string, None, a tensor, or a list, tuple or dict of "
        f"such (all keys strings that do not begin with $, or all int), got {type(value).__name__}"
    )
