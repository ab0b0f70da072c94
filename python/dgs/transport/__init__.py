# SPDX-License-Identifier: Apache-2.0
"""What carries the bytes: one contract (base), gloo between processes, queues within one."""

from __future__ import annotations

from .base import Link, Listener
from .gloo import GlooLink, GlooListener, dial
from .inprocess import InProcessLink, InProcessListener

__all__ = ["GlooLink", "GlooListener", "InProcessLink", "InProcessListener", "Link", "Listener", "dial"]
