# SPDX-License-Identifier: Apache-2.0
"""A worker's signs of life, from a thread of their own: a step may take as long as it likes."""

from __future__ import annotations

import logging
import threading

from .errors import TransportError
from .transport import Link

log = logging.getLogger(__name__)


class Heart:
    """A thread that beats until stopped or until the link is gone, whatever the main thread is doing."""

    def __init__(self, link: Link, every: float) -> None:
        self._link, self._every = link, every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dgs-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self._link.beat()
            except TransportError as error:
                log.debug("the heartbeat ends: %s", error)
                return
