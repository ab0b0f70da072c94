# SPDX-License-Identifier: Apache-2.0
"""torch's threads, shared out among the processes of one machine so that they do not fight over the cores."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping

import torch

from .config import Settings
from .errors import ServerUnreachableError
from .transport.address import is_loopback

log = logging.getLogger(__name__)


def sensible_threads(
    settings: Settings, cores: int, *, server: bool, environ: Mapping[str, str] | None = None
) -> int | None:
    """How many threads this process should use; None: leave torch's own number.

    `threads` if set, and whatever OMP_NUM_THREADS says; else, where all processes run on one machine (the master is
    loopback, or LOCAL_WORLD_SIZE says how many), a worker's even share of the cores, and one for the server. A server
    with a machine of its own has √cores: so many frames, too, are worked on at a time (dgs.server.desks), which is
    between the least time for one worker and the most workers.
    """
    environ = os.environ if environ is None else environ
    if settings.threads is not None:
        return settings.threads
    if environ.get("OMP_NUM_THREADS") or settings.local:
        return None
    local = environ.get("LOCAL_WORLD_SIZE")
    if local:
        processes = int(local)
    else:
        try:
            if not is_loopback(settings.master):
                return math.isqrt(cores) if server else None
        except ServerUnreachableError:
            return None
        processes = settings.world_size or 2
    return 1 if server else max(1, cores // max(1, processes - 1))


def share_cores(settings: Settings, *, server: bool) -> None:
    """Sets torch's intra-op threads to a sensible number."""
    threads = sensible_threads(settings, len(os.sched_getaffinity(0)), server=server)
    if threads is not None and threads != torch.get_num_threads():
        log.info("torch uses %d threads (was %d)", threads, torch.get_num_threads())
        torch.set_num_threads(threads)
