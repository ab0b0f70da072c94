# SPDX-License-Identifier: Apache-2.0
"""Machines at a switch with links of a given rate: network namespaces, veth pairs and token buckets. Needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

_TOOLS = {"ip": "iproute2", "tc": "iproute2", "sysctl": "procps"}  # and the packages they come in
_QUEUE = 4 << 20  # bytes that wait for a token: nothing that is sent here is dropped for want of room
_BURST = 1e-3  # seconds' worth of tokens: little beside a frame, which they hasten
_SEGMENTS = 2  # of TCP in what is queued at once
_PACKET = 4000  # bytes of tokens at least: more than a packet, or none would pass


class ShapingError(RuntimeError):
    """This machine does not let us make or shape a network."""


def _run(command: str) -> None:
    try:
        subprocess.run(command.split(), check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise ShapingError(f"`{command}`: {said.strip()}") from None


class Shaped:
    """A switch and `hosts` machines, whose links pass `rate` bits per second in each direction.

    Every link has a token bucket at both ends. All of it is gone after the `with` block, and what an earlier process
    that was killed left behind as well. Two things make it a network and not a machine:

    - TCP is reno, which sends as acknowledgements come. BBR, where it is the system's, sends by timers, which fire
      late where the cores are busy: a reduction of 1.8 s took up to 15.
    - Segments are not gathered: by 64 kB at a time, a tenth of a second at 5 Mbit/s, one connection kept another's
      acknowledgements waiting until some workers had four times as many exchanges as others.
    """

    def __init__(self, hosts: int, rate: float) -> None:
        self.hosts, self.rate = hosts, rate
        self._prefix = f"dgs-{os.getpid()}-"

    def __enter__(self) -> Shaped:
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise ShapingError(f"there is no `{tool}` (Debian: apt-get install {package})")
        _sweep()
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _make(self) -> None:
        switch = self._prefix + "switch"
        _run(f"ip netns add {switch}")
        _run(f"ip -n {switch} link add bridge type bridge")
        _run(f"ip -n {switch} link set bridge up")
        for i in range(self.hosts):
            host, port = f"{self._prefix}{i}", f"port{i}"
            _run(f"ip netns add {host}")
            _run(f"ip netns exec {host} sysctl -qw net.ipv4.tcp_congestion_control=reno")
            _run(f"ip link add eth netns {host} type veth peer name {port} netns {switch}")
            _run(f"ip -n {host} addr add {self.address(i)}/24 dev eth")
            _run(f"ip -n {switch} link set {port} master bridge")
            _run(f"ip -n {host} link set lo up")
            _run(f"ip -n {host} link set eth gso_max_segs {_SEGMENTS}")
            for space, device in ((host, "eth"), (switch, port)):
                _run(f"ip -n {space} link set {device} up")
                self._shape(space, device)

    def _shape(self, space: str, device: str) -> None:
        burst = max(_PACKET, int(self.rate / 8 * _BURST))
        bucket = f"rate {self.rate:.0f}bit burst {burst} limit {_QUEUE}"
        _run(f"tc -n {space} qdisc add dev {device} root tbf {bucket}")

    def address(self, host: int) -> str:
        """The IPv4 address of a machine, from 0."""
        return f"10.77.0.{host + 1}"

    def command(self, host: int, *command: str) -> list[str]:
        """The command line that runs `command` on a machine."""
        return ["ip", "netns", "exec", f"{self._prefix}{host}", *command]

    def _remove(self) -> None:
        for name in _spaces(self._prefix):
            with contextlib.suppress(ShapingError):  # the others are to go all the same
                _run(f"ip netns del {name}")


def _spaces(prefix: str) -> list[str]:
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.glob(f"{prefix}*")) if folder.is_dir() else []


def _sweep() -> None:
    """Removes the namespaces of processes that are no more."""
    for name in _spaces("dgs-"):
        pid = name.split("-")[1]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            _run(f"ip netns del {name}")


def obstacle() -> str | None:
    """Why links cannot be shaped here, in words; None where they can."""
    try:
        with Shaped(2, 1e8):
            return None
    except ShapingError as error:
        return str(error)
