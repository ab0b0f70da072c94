# SPDX-License-Identifier: Apache-2.0
"""A worker that dies while its push is on the wire: gloo does not wake the session that waits for the rest of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
from waiting import until

from dgs import config
from dgs.buffers import BufferStore
from dgs.layout import Layout
from dgs.server import Report, Server, ServerState
from dgs.transport import GlooListener

N = 40_000_000  # a push of 160 MB: it takes longer than the milliseconds after which its sender is dead
WORKER = f"""
import os, signal, sys, threading, torch
from datetime import timedelta
from dgs import config
from dgs.layout import Layout
from dgs.transport import GlooLink, dial
from dgs.worker import Worker
settings = config.resolve(None, {{}}, mode="asgd", rank=1, world_size=2, heartbeat=0.2)
layout = Layout([("w", ({N},))], [])
worker = Worker(layout, settings, True, lambda timeout: dial("127.0.0.1", int(sys.argv[1]), timeout))
worker.join(timedelta(seconds=60))
push = torch.ones({N})
send = GlooLink.send
def dying(link, frame, timeout):
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
    send(link, frame, timeout)
GlooLink.send = dying
worker.push(push, settings.codec_up, 1.0, (0, ""))
worker.pull()
"""


@pytest.mark.slow
def test_the_server_gives_the_session_up_and_returns() -> None:
    settings = config.resolve(
        None, {}, mode="asgd", rank=0, world_size=2, heartbeat=0.2, heartbeat_timeout=2.0, grace=1.0
    )
    layout = Layout([("w", (N,))], [])
    listener = GlooListener("127.0.0.1", 0)
    state = ServerState(layout, torch.zeros(N), device=torch.device("cpu"))
    server = Server(state, BufferStore([], {}, "none"), settings, listener, dense=True)
    reports: list[Report] = []
    serving = threading.Thread(target=lambda: reports.append(server.serve()), daemon=True)
    serving.start()
    command = [sys.executable, "-c", WORKER, str(listener.port)]
    died = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=120)
    assert died.returncode == -9
    until(lambda: reports, "the server returned", seconds=60)
    assert [w.outcome for w in reports[0].workers] == ["died"] and reports[0].version == 0
    assert not state.snapshot().theta.any()
