# SPDX-License-Identifier: Apache-2.0
"""What carries the bytes: one contract (base), gloo between processes, queues within one."""

from __future__ import annotations

from .base import Link, Listener
from .gloo import GlooLink
from .inprocess import InProcessLink, InProcessListener
from .meeting import GlooListener, dial

__all__ = ["GlooLink", "GlooListener", "InProcessLink", "InProcessListener", "Link", "Listener", "dial"]
