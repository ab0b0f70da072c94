# SPDX-License-Identifier: Apache-2.0
"""A server that runs by itself, as a service: `dgs-server mymodels:make_net --checkpoint-dir checkpoints`."""

from __future__ import annotations

from .model import load_model

__all__ = ["load_model"]
