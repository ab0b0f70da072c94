# SPDX-License-Identifier: Apache-2.0
"""The buffers (batch-norm statistics) of a worker's model: when they are sent, and what stands in for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from . import buffers
from .layout import Layout


class ModelBuffers:
    """The buffers of `model`.

    Args:
        model: holds them.
        layout: names those that travel.
        every: exchanges between two sendings.
        sent: False where the policy is "none": the server's stay as they were.
    """

    def __init__(self, model: nn.Module, layout: Layout, every: int, sent: bool) -> None:
        self._model, self._layout, self._every = model, layout, every
        self.sent = sent and bool(layout.buffers)

    def due(self, exchanges: int) -> bool:
        """Every n exchanges, and before the first n after 1, 2, 4, …: initial statistics are good for nothing."""
        if not self.sent:
            return False
        early = exchanges < self._every and exchanges & (exchanges - 1) == 0
        return early or exchanges % self._every == 0

    def packed(self) -> Tensor:
        """Their bytes, uint8."""
        return buffers.pack(buffers.of(self._model), self._layout.buffers)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Copies those of `values` that the model has into it, frozen parameters too."""
        buffers.load(self._model, values)

    @contextmanager
    def showing(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Shows `values` in the model, and puts its own back."""
        own = {name: b.detach().clone() for name, b in buffers.of(self._model).items()}
        self.load(values)
        try:
            yield
        finally:
            self.load(own)
