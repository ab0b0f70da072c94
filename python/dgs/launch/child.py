# SPDX-License-Identifier: Apache-2.0
"""One process of a run on this machine: its environment, its start, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from .output import Lines

_TIED = Path(__file__).with_name("tied.py")
_CHUNK = 1 << 16
_CHUNKS = 16  # at a time: more than a pipe holds, and an end where someone never stops talking
_OVERRULING = {"DGS_RANK", "DGS_WORLD_SIZE", "DGS_MASTER", "DGS_PORT"}  # what is set here, if they were left


def environment(base: Mapping[str, str], rank: int, workers: int, port: int) -> dict[str, str]:
    """What the process of `rank` finds: `base`, with the variables that torchrun sets for all of one machine."""
    kept = {
        name: value
        for name, value in base.items()
        if name not in _OVERRULING and not name.startswith("TORCHELASTIC_")
    }
    threads = {} if base.get("OMP_NUM_THREADS") else {"OMP_NUM_THREADS": str(threads_of(rank, workers))}
    return kept | threads | {
        "RANK": str(rank),
        "WORLD_SIZE": str(workers + 1),
        "LOCAL_RANK": str(max(0, rank - 1)),  # the number of its GPU; the server shares the first
        "LOCAL_WORLD_SIZE": str(workers + 1),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip


def threads_of(rank: int, workers: int) -> int:
    """Threads of a process where nobody has chosen: one for the server, a share of the cores for each worker."""
    return max(1, len(os.sched_getaffinity(0)) // workers) if rank else 1


class Child:
    """A running process, leader of a group of its own, so that a terminal's Ctrl-C is for its parent alone.

    Args:
        name: as it is shown.
        rank: 0 for the server.
        program: what follows `python`.
        environ: its environment.
        out, err: what takes its stdout and stderr.
    """

    def __init__(
        self, name: str, rank: int, program: Sequence[str], environ: Mapping[str, str], out: Lines, err: Lines
    ) -> None:
        self.name, self.rank = name, rank
        tie = [sys.executable, "-I", "-S", str(_TIED), str(os.getpid())]
        self._process = subprocess.Popen(
            [*tie, sys.executable, "-u", *program],
            env=environ,
            stdin=subprocess.DEVNULL,  # which a group in the background may not read from a terminal
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self.streams: dict[IO[bytes], Lines] = {self._process.stdout: out, self._process.stderr: err}
        for stream in self.streams:
            os.set_blocking(stream.fileno(), False)

    def read(self, stream: IO[bytes]) -> bool:
        """Shows what there is to read; whether more may come."""
        for _ in range(_CHUNKS):
            try:
                data = os.read(stream.fileno(), _CHUNK)
            except BlockingIOError:
                break
            if not data:
                return False
            self.streams[stream].feed(data)
        return True

    def signal(self, number: int) -> None:
        """Sends a signal to the process, and to none that it has started."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kills the process and its group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def status(self) -> int | None:
        """None while it runs, then its exit code, 128 + n where signal n ended it; what it left behind is killed."""
        if self._process.returncode is None:
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return None
            self.kill()  # before the number may be another's
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        """Shows the rest of what an ended process has said, and closes its streams."""
        for stream, lines in self.streams.items():
            self.read(stream)
            lines.end()
            stream.close()
