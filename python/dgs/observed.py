# SPDX-License-Identifier: Apache-2.0
"""What a worker sees of its own training, kept until it is asked for."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError


class Observed:
    """Sums that stay on the loss's device, so that no step waits for a GPU. Used from one thread."""

    def __init__(self) -> None:
        self.samples = 0
        self._began = time.monotonic()
        self._loss: Tensor | float = 0.0  # times samples, since it was taken last
        self._weight = 0
        self._measured: dict[str, float] = {}

    def batch(self, loss: Tensor | float | None, samples: int) -> None:
        """A step's mean loss, and the samples that it saw."""
        if isinstance(loss, Tensor) and loss.numel() != 1:
            raise ConfigError(f"observe: loss must be one number, got a tensor of shape {tuple(loss.shape)}")
        if samples < 1:
            raise ConfigError(f"observe: samples must be at least 1, got {samples}")
        self.samples += samples
        if loss is not None:
            value = loss.detach().to(torch.float32) if isinstance(loss, Tensor) else loss
            self._loss = self._loss + value * samples
            self._weight += samples

    def measured(self, values: dict[str, float]) -> None:
        """What an evaluation gave."""
        self._measured |= {name: float(value) for name, value in values.items()}

    def take(self, waiting: float) -> dict[str, Any]:
        """Everything, as a push's metadata has it; `waiting`: seconds for the network so far."""
        told: dict[str, Any] = {
            "seconds": round(time.monotonic() - self._began, 4),
            "waiting": round(waiting, 4),
            "samples": self.samples,
        }
        loss = float(self._loss) / self._weight if self._weight else math.nan
        if math.isfinite(loss):
            told["loss"] = loss
        measured = {name: value for name, value in self._measured.items() if math.isfinite(value)}
        if measured:
            told["measured"] = measured
        self._loss, self._weight, self._measured = 0.0, 0, {}
        return told
