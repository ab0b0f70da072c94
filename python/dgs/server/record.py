# SPDX-License-Identifier: Apache-2.0
"""What the server knows of a worker, whether it is there or not."""

from __future__ import annotations

from dataclasses import dataclass

from dgs_ext.wire import Codec


@dataclass
class WorkerRecord:
    """What the server knows of a worker, over all its sessions."""

    identity: str
    rank: int
    codec_up: Codec
    codec_down: Codec  # of the last pull; until then the widest that one may come in
    dense: bool
    applied: int = 0  # its pushes that were applied, as the worker counts them
    outcome: str = "alive"  # then "finished", "left", "paused", "failed" or "died"
    reason: str = ""
    exchanges: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    staleness: int = 0
    behind: float = 0.0  # ‖θ - b‖ / ‖push‖ at the last look
    residual: float = 0.0  # ‖θ - b‖ then
