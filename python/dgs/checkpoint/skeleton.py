# SPDX-License-Identifier: Apache-2.0
"""The names of a model's tensors, and a module of nothing but them: enough to serve a model without its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from .. import buffers as module_buffers
from ..layout import trainable


@dataclass(frozen=True, slots=True)
class Names:
    """The names in a model's state_dict, in its order.

    `keys` are all of them, each with the name under which the tensor comes first (tied tensors have several); of
    these first names some are `trained` and some `frozen`, and the rest are buffers.
    """

    keys: dict[str, str]
    trained: list[str]
    frozen: list[str]

    @classmethod
    def of(cls, model: nn.Module) -> Names:
        """Those of `model`; entries of its state_dict that are no parameters or buffers are left out."""
        first: dict[int, str] = {}
        for name, tensor in (*model.named_parameters(), *module_buffers.of(model).items()):
            first.setdefault(id(tensor), name)
        saved = model.state_dict(keep_vars=True).items()
        trained = [name for name, _ in trainable(model)]
        return cls(
            {key: first[id(tensor)] for key, tensor in saved if id(tensor) in first},
            trained,
            list(module_buffers.frozen(model, trained)),
        )

    def saved(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`values`, which are by first names, as the model's state_dict has them."""
        return {key: values[name] for key, name in self.keys.items()}

    def values(self, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The other way round."""
        return {name: saved[name] for name in dict.fromkeys(self.keys.values())}


def skeleton(names: Names, saved: Mapping[str, Tensor]) -> nn.Module:
    """A module with the tensors of a state_dict, whose layout is that of the model that they come from."""
    root = nn.Module()
    trained, parameters = set(names.trained), {*names.trained, *names.frozen}
    made: dict[str, Tensor] = {}
    for key, name in names.keys.items():
        *parents, own = key.split(".")
        module = root
        for part in parents:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        if name in parameters and name not in made:
            trains = name in trained
            made[name] = nn.Parameter(saved[name].clone(), requires_grad=trains)
        tensor = made.setdefault(name, saved[name])
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(own, tensor)
        else:
            module.register_buffer(own, tensor)
    return root
