# SPDX-License-Identifier: Apache-2.0
"""A worker that ends amid an exchange over gloo, where a message goes when its receiver has asked for it."""

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

WORKER = """
import os, signal, sys, threading, torch
from datetime import timedelta
from dgs import config
from dgs.layout import Layout
from dgs.transport import GlooLink, dial
from dgs.worker import Worker
port, n = int(sys.argv[1]), int(sys.argv[2])
settings = config.resolve(None, {}, mode="asgd", rank=1, world_size=2, heartbeat=0.2)
worker = Worker(Layout([("w", (n,))], []), settings, True, lambda timeout: dial("127.0.0.1", port, timeout))
worker.join(timedelta(seconds=60))
push = torch.ones(n)
send = GlooLink.send
"""
DYING = """
def dying(link, frame, timeout):
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
    send(link, frame, timeout)
GlooLink.send = dying
worker.push(push, settings.codec_up, 1.0, (0, ""))
worker.pull()
"""
INTERRUPTED = """
def interrupted(link, frame, timeout):
    send(link, frame, timeout)
    signal.raise_signal(signal.SIGINT)  # Python sees one that comes in gloo's wait behind it
GlooLink.send = interrupted
try:
    worker.push(push, settings.codec_up, 1.0, (0, ""))
except KeyboardInterrupt:
    worker.close("failed", "Ctrl-C")
"""


def _serve_one(n: int, what_it_does: str, **chosen: float) -> tuple[Report, torch.Tensor, int]:
    """The server's report and model, n ones less what was pushed, and the exit code of its only worker."""
    settings = config.resolve(None, {}, mode="asgd", rank=0, world_size=2, grace=1.0, **chosen)
    layout = Layout([("w", (n,))], [])
    listener = GlooListener("127.0.0.1", 0)
    state = ServerState(layout, torch.ones(n), device=torch.device("cpu"))
    server = Server(state, BufferStore([], {}, "none"), settings, listener, dense=True)
    reports: list[Report] = []
    serving = threading.Thread(target=lambda: reports.append(server.serve()), daemon=True)
    serving.start()
    command = [sys.executable, "-c", WORKER + what_it_does, str(listener.port), str(n)]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=120)
    until(lambda: reports, "the server returned", seconds=60)
    return reports[0], state.snapshot().theta, ended.returncode


@pytest.mark.slow
def test_the_server_gives_up_the_session_of_one_killed_amid_its_push_and_returns() -> None:
    """gloo does not wake who waits for the rest of a message: it takes longer than the sender has to live."""
    report, theta, code = _serve_one(40_000_000, DYING, heartbeat=0.2, heartbeat_timeout=2.0)
    assert code == -9
    assert [w.outcome for w in report.workers] == ["died"] and report.version == 0
    assert theta.all()


def test_ctrl_c_behind_a_push_is_no_obstacle_to_the_goodbye() -> None:
    """The server holds a reply of two messages, which nobody has asked for."""
    report, theta, code = _serve_one(3_000_000, INTERRUPTED)
    assert code == 0
    assert [(w.outcome, w.reason) for w in report.workers] == [("failed", "Ctrl-C")]
    assert report.version == 1 and not theta.any()
