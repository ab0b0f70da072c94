# SPDX-License-Identifier: Apache-2.0
"""A server and its workers on this machine, by one command: `python -m dgs.launch --workers 4 script.py …`."""

from __future__ import annotations

from .run import launch

__all__ = ["launch"]
