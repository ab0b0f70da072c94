# SPDX-License-Identifier: Apache-2.0
"""SIGTERM at a server: it hears its workers' goodbyes, and ends as if it had been stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from ..termination import Termination
from .service import Server

log = logging.getLogger(__name__)

_GOODBYES = 5.0  # seconds that workers, to whom SIGTERM may have come too, have for them


@contextmanager
def orderly_end(server: Server) -> Iterator[None]:
    """Until the end of the block SIGTERM stops the server, and is SystemExit(143) after the block.

    A second one is SystemExit at once. Nothing changes outside the main thread, or where the program handles it.
    """
    termination, came, over = Termination(), SimpleQueue[bool](), threading.Event()
    termination.told = lambda: came.put(True)  # the one queue that a signal's handler may use

    def end() -> None:
        if not came.get():
            return
        log.warning("SIGTERM: the server ends at version %d", server.state.version)
        deadline = time.monotonic() + _GOODBYES
        while server.active() and time.monotonic() < deadline and not over.wait(0.05):
            pass
        server.stop()

    thread = threading.Thread(target=end, name="dgs-ending", daemon=True)
    termination.install()
    thread.start()
    try:
        with termination.deferred():
            yield
    finally:
        termination.remove()
        over.set()
        came.put(False)
        thread.join()
