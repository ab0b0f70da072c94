# SPDX-License-Identifier: Apache-2.0
"""The worker's side of a join: it dials, proves its token, says hello and hears the answer (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from dgs_ext import wire

from . import protocol
from .bounded import within
from .config import CODECS, Settings
from .errors import AuthenticationError, LinkTimeoutError, ServerUnreachableError
from .layout import Layout
from .protocol import Hello, Welcome
from .transport import Link

_JOIN_TIMEOUT = timedelta(seconds=60)
_PATIENCE = 20.0  # seconds beyond a join's timeout, for an answer that is on its way

Dial = Callable[[timedelta], Link]


def make_hello(
    layout: Layout, settings: Settings, dense: bool, identity: str, sequence: int, digest: str | None = None
) -> Hello:
    """What a worker with that many acknowledged pushes says of itself; `digest` is that of weights to go on from."""
    return Hello(
        protocol=protocol.PROTOCOL,
        wire=wire.VERSION,
        identity=identity,
        rank=settings.rank,
        kind="dense" if dense else "sparse",
        mode=settings.mode,
        codec=settings.codec,
        codecs=list(CODECS),
        fingerprint=f"{layout.fingerprint:016x}",
        tensors=[list(t) for t in layout.describe()],
        buffers=[list(b) for b in layout.buffers],
        sequence=sequence,
        digest=digest,
    )


def meet(dial: Dial, token: str | None, hello: Hello, timeout: timedelta) -> tuple[Link, Welcome]:
    """Dials the server, waiting for one at most `timeout`, and opens a session on the link.

    Raises:
        ServerUnreachableError: no server came, or it does not answer.
        RefusedError: it does not take this worker.
    """

    def try_once() -> tuple[Link, Welcome]:
        link = dial(timeout)
        try:
            welcome = introduce(link, token, hello, _JOIN_TIMEOUT)
            link.open(welcome.session, welcome.cap, _JOIN_TIMEOUT)
        except BaseException:
            link.close()
            raise
        return link, welcome

    try:
        return within(
            timeout.total_seconds() + _PATIENCE,
            try_once,
            lambda met: met[0].close(),
            "the server did not answer",
        )
    except LinkTimeoutError as error:
        raise ServerUnreachableError(f"{error}: is it frozen, or not a server of this library?") from None


def introduce(link: Link, token: str | None, hello: Hello, timeout: timedelta) -> Welcome:
    """Says `hello` to the server and returns its welcome.

    Raises:
        RefusedError: the server does not take this worker (AuthenticationError: the tokens differ).
        TransportError: it did not answer, each time within `timeout`.
    """
    nonce = protocol.nonce()
    link.tell({"nonce": nonce})
    challenge = link.hear(timeout)
    protocol.raise_refusal(challenge)
    try:
        proof = prove(token, nonce, challenge)
    except AuthenticationError as error:
        link.tell(protocol.refusal(error.code, f"the worker turned away: {error}"))
        raise
    link.tell(asdict(hello) | ({"proof": proof} if proof else {}))
    answer = link.hear(timeout)
    protocol.raise_refusal(answer)
    return protocol.parse(Welcome, answer)


def prove(token: str | None, nonce: str, challenge: Mapping[str, Any]) -> str | None:
    """Checks the server's proof and returns the worker's; None where neither has a token."""
    theirs = challenge.get("challenge")
    if token is None:
        if theirs is not None:
            raise AuthenticationError("the server asks for a token: set DGS_TOKEN to the server's")
        return None
    if not isinstance(theirs, str):
        raise AuthenticationError("this worker has a token (DGS_TOKEN) and the server has none")
    protocol.check_proof(token, "server", nonce, theirs, challenge.get("proof"))
    return protocol.proof(token, "worker", nonce, theirs)
