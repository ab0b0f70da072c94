# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: safetensors and JSON, never pickle; each is written whole or not at all.

dgs.checkpoint.save("worker1.safetensors", {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
state = dgs.checkpoint.load("worker1.safetensors")

A server writes its own into a folder (settings `checkpoint_*`); `Checkpoints` reads and writes such a folder.
"""

from __future__ import annotations

from .files import load, save
from .folder import Checkpoint, Checkpoints
from .skeleton import Names, skeleton

__all__ = ["Checkpoint", "Checkpoints", "Names", "load", "save", "skeleton"]
