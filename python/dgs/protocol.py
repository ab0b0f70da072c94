# SPDX-License-Identifier: Apache-2.0
"""What worker and server say to each other: the hello, its answer, and the metadata of frames.

A join:   worker: a nonce;  server: a challenge (with a token) or none;  worker: proof and hello;  server: welcome or
refusal. Nothing is allocated for a worker before its proof.
Then frames: each PUSH and REQUEST has one reply (PULL, SNAPSHOT or ERROR); BUFFERS has none; GOODBYE is echoed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import AuthenticationError, DivergedError, ProtocolError, RefusedError

PROTOCOL = 4
MAX_TENSORS = 65535
FRAME_SLACK = 1 << 17  # room for metadata and for small messages beside a dense model


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker says first.

    `sequence` counts its acknowledged pushes; `identity` outlives a session; `digest` is that of the weights that it
    holds, if it would go on from them.
    """

    protocol: int
    wire: int
    identity: str
    rank: int | None
    kind: str  # "sparse" or "dense"
    mode: str
    codec: str
    codecs: list[str]
    fingerprint: str
    tensors: list[Any]
    buffers: list[Any]
    sequence: int
    digest: str | None


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server's answer.

    `applied` counts the pushes of this worker that it has applied; `resumed` is the version of the weights that the
    worker holds, if it goes on from them, and null if it is to ask for a snapshot.
    """

    session: str
    rank: int
    index: int
    workers: int
    version: int
    max_version: int | None
    cap: int
    codec: str
    applied: int
    resumed: int | None


Message = TypeVar("Message", Hello, Welcome)


def parse(kind: type[Message], message: Mapping[str, Any]) -> Message:
    """`message` as a Hello or Welcome; every field present and of its type, or ProtocolError."""
    fields = kind.__dataclass_fields__
    missing = [name for name in fields if name not in message]
    if missing:
        raise ProtocolError(f"a {kind.__name__.lower()} lacks the field {missing[0]!r}")
    for name, field in fields.items():
        if not _fits(message[name], str(field.type)):
            raise ProtocolError(
                f"{kind.__name__.lower()}.{name} must be {field.type}, got {message[name]!r:.80}"
            )
    return kind(**{name: message[name] for name in fields})


def _fits(value: object, annotation: str) -> bool:
    if value is None:
        return annotation.endswith("None")
    base = annotation.partition("[")[0].partition(" ")[0]
    kind = {"int": int, "str": str, "list": list}[base]
    return isinstance(value, kind) and not isinstance(value, bool) and (kind is not int or 0 <= value < 2**63)  # type: ignore[operator]


def refusal(code: str, message: str) -> dict[str, Any]:
    return {"refused": code, "message": message}


def raise_refusal(message: Mapping[str, Any]) -> None:
    """Raises RefusedError (AuthenticationError, DivergedError) if the message is a refusal."""
    if "refused" in message:
        code, text = str(message["refused"]), str(message.get("message", ""))
        special = {"token": AuthenticationError, "diverged": DivergedError}
        raise special[code](text) if code in special else RefusedError(code, text)


def nonce() -> str:
    return secrets.token_hex(16)


def proof(token: str, role: str, worker_nonce: str, server_nonce: str) -> str:
    """HMAC-SHA256 with which an end that holds `token` answers the other's nonce."""
    text = f"dgs {role} {worker_nonce} {server_nonce}"
    return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()


def check_proof(token: str, role: str, worker_nonce: str, server_nonce: str, given: object) -> None:
    expected = proof(token, role, worker_nonce, server_nonce)
    if not hmac.compare_digest(expected, str(given)):
        raise AuthenticationError(f"the {role} does not hold the token (DGS_TOKEN) of the other end")


def cap(numel: int, buffer_bytes: int) -> int:
    """The largest payload of a session: the dense model or all buffers, and metadata."""
    return max(4 * numel, buffer_bytes) + FRAME_SLACK


def meta(**values: Any) -> bytes:
    """A frame's metadata."""
    return json.dumps(values, separators=(",", ":")).encode()


def parse_meta(text: bytes) -> dict[str, Any]:
    """The JSON object in a frame's metadata (empty: {}), or ProtocolError."""
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame's metadata is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ProtocolError("a frame's metadata is no JSON object")
    return values
