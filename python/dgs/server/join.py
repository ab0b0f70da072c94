# SPDX-License-Identifier: Apache-2.0
"""The server's side of a join: token, hello, checks. A RefusedError here is told to the worker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from dgs_ext import wire
from dgs_ext.wire import Codec

from .. import protocol
from ..config import CODECS, Settings
from ..errors import ProtocolError, RefusedError
from ..layout import Layout
from ..protocol import Hello
from ..transport import Link
from .budget import codecs_down


class Challenge:
    """What the server answers to a worker's first message, and the check of what comes back.

    Args:
        first: the worker's first message, its nonce.
        token: the secret that the worker must hold, if there is one.
    """

    def __init__(self, first: Mapping[str, Any], token: str | None) -> None:
        nonce = first.get("nonce")
        if not isinstance(nonce, str) or not 8 <= len(nonce) <= 256:
            raise ProtocolError("a join begins with a nonce of 8 to 256 characters")
        self._token, self._theirs, self._mine = token, nonce, protocol.nonce()
        self.message: dict[str, Any] = {"challenge": None}
        if token is not None:
            self.message = {
                "challenge": self._mine,
                "proof": protocol.proof(token, "server", nonce, self._mine),
            }

    def hello(self, answer: Mapping[str, Any]) -> Hello:
        """The hello in the worker's answer, once it has proven that it holds the token."""
        protocol.raise_refusal(answer)
        if self._token is not None:
            protocol.check_proof(self._token, "worker", self._theirs, self._mine, answer.get("proof"))
        if answer.get("protocol") != protocol.PROTOCOL:
            raise RefusedError(
                "protocol",
                f"the worker speaks protocol {answer.get('protocol')!r:.20}, the server {protocol.PROTOCOL}: "
                "install the same release on both",
            )
        return protocol.parse(Hello, answer)


def hear_hello(link: Link, token: str | None, timeout: timedelta) -> Hello:
    """The worker's hello, over a link; each message within `timeout`."""
    challenge = Challenge(link.hear(timeout), token)
    link.tell(challenge.message)
    return challenge.hello(link.hear(timeout))


def check_hello(hello: Hello, layout: Layout, settings: Settings, dense: bool) -> None:
    """Raises RefusedError, naming both sides, when worker and server do not fit."""
    if hello.wire != wire.VERSION:
        raise RefusedError(
            "wire", f"the worker writes frames of version {hello.wire}, the server reads {wire.VERSION}"
        )
    kind = "dense" if dense else "sparse"
    if hello.kind != kind:
        raise RefusedError(
            "method",
            f"the worker's method {hello.mode} is {hello.kind}, the server's {settings.mode} is {kind}",
        )
    if len(hello.tensors) > protocol.MAX_TENSORS:
        raise RefusedError("layout", f"a model of {len(hello.tensors)} tensors passes {protocol.MAX_TENSORS}")
    if hello.fingerprint != f"{layout.fingerprint:016x}":
        raise RefusedError("layout", f"the models differ: {_difference(layout, hello)}")
    if hello.codec not in CODECS:
        raise RefusedError("codec", f"the worker sends {hello.codec}, the server reads {', '.join(CODECS)}")
    sent = [codec.name.lower() for codec in codecs_of_pulls(hello, settings)]
    if not set(sent) <= set(hello.codecs):
        read = ", ".join(map(str, hello.codecs))
        raise RefusedError(
            "codec", f"the server sends {', '.join(sent)}, the worker reads {read}: set the server's codec_down"
        )
    if (
        hello.rank is not None
        and settings.world_size is not None
        and not 1 <= hello.rank < settings.world_size
    ):
        raise RefusedError("rank", f"rank {hello.rank} is not a worker's in a world of {settings.world_size}")
    if hello.rank == 0 or (hello.rank or 0) > 65535:
        raise RefusedError("rank", f"rank {hello.rank} is not a worker's: workers are 1 to 65535")


def codecs_of_pulls(hello: Hello, settings: Settings) -> tuple[Codec, ...]:
    """Those that the worker may be sent, the widest first."""
    return codecs_down(CODECS[hello.codec], settings.codec_pulls)


def _difference(layout: Layout, hello: Hello) -> str:
    shapes = [
        (str(t[0]), t[1])
        for t in hello.tensors
        if isinstance(t, list) and len(t) == 2 and isinstance(t[1], list)
    ]
    found = layout.difference(shapes)
    if found:
        cure = ""
        if {name for name, _ in shapes} < {s.name for s in layout.segments}:
            cure = ": to train only some, freeze the others on the server too, requires_grad_(False)"
        return f"{found} (here the server, there the worker){cure}"
    mine = [[name, dtype, list(shape)] for name, dtype, shape in layout.buffers]
    if mine == hello.buffers:
        return "the parameters that are not trained (frozen) are others"
    return f"the buffers: {mine!r:.200} on the server, {hello.buffers!r:.200} on the worker"
