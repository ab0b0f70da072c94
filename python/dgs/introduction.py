# SPDX-License-Identifier: Apache-2.0
"""The worker's side of a join: token, hello, and the server's answer (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from . import protocol
from .errors import AuthenticationError
from .protocol import Hello, Welcome
from .transport import Link


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
