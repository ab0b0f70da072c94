# SPDX-License-Identifier: Apache-2.0
"""The JSON of hellos and of frames' metadata: nothing in it is believed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from dgs import protocol
from dgs.errors import AuthenticationError, ProtocolError, RefusedError
from dgs.protocol import Hello, Welcome
from dgs.transport.frames import parse_json

HELLO = Hello(1, 1, "me", None, "sparse", "dgs", "float32", ["float32"], "00", [["w", [2]]], [], 0, None)
WELCOME = Welcome("1-me", 1, 0, 2, 0, None, 1000, "float32", 0, None)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000], ids=lambda t: repr(t[:4])
)
def test_what_is_no_json_is_a_typed_error(text: bytes) -> None:
    with pytest.raises(ProtocolError, match="no JSON"):
        parse_json(text)
    if text:
        with pytest.raises(ProtocolError, match="no JSON"):
            protocol.parse_meta(text)


def test_metadata_is_an_object_or_nothing() -> None:
    assert protocol.parse_meta(b"") == {}
    assert protocol.parse_meta(protocol.meta(a=1, b=None)) == {"a": 1, "b": None}
    with pytest.raises(ProtocolError, match="no JSON object"):
        protocol.parse_meta(b"[1]")


@pytest.mark.parametrize("message", [HELLO, WELCOME], ids=lambda m: type(m).__name__)
def test_a_message_survives_and_each_missing_field_is_named(message: Hello | Welcome) -> None:
    values = asdict(message)
    assert protocol.parse(type(message), values | {"unknown": "is ignored"}) == message
    for name in values:
        with pytest.raises(ProtocolError, match=repr(name)):
            protocol.parse(type(message), {k: v for k, v in values.items() if k != name})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", "1"),
        ("protocol", True),
        ("wire", 1.0),
        ("identity", None),
        ("rank", -1),
        ("rank", 2**63),
        ("kind", ["sparse"]),
        ("codecs", "float32"),
        ("tensors", {}),
        ("sequence", None),
    ],
    ids=repr,
)
def test_a_field_of_another_type_is_named(field: str, value: Any) -> None:
    with pytest.raises(ProtocolError, match=f"hello.{field} must be"):
        protocol.parse(Hello, asdict(HELLO) | {field: value})


def test_a_proof_holds_for_its_token_role_and_nonces_alone() -> None:
    given = protocol.proof("secret", "worker", "a" * 32, "b" * 32)
    protocol.check_proof("secret", "worker", "a" * 32, "b" * 32, given)
    for wrong in (
        ("Secret", "worker", "a" * 32, "b" * 32),
        ("secret", "server", "a" * 32, "b" * 32),
        ("secret", "worker", "b" * 32, "b" * 32),
        ("secret", "worker", "a" * 32, "a" * 32),
    ):
        with pytest.raises(AuthenticationError, match="DGS_TOKEN"):
            protocol.check_proof(*wrong, given)
    for absent in (None, "", 3, given + "0"):
        with pytest.raises(AuthenticationError):
            protocol.check_proof("secret", "worker", "a" * 32, "b" * 32, absent)


def test_a_refusal_is_raised_as_what_it_is() -> None:
    protocol.raise_refusal({"challenge": None})
    with pytest.raises(RefusedError, match="the models differ") as refused:
        protocol.raise_refusal(protocol.refusal("layout", "the models differ"))
    assert refused.value.code == "layout"
    with pytest.raises(AuthenticationError):
        protocol.raise_refusal(protocol.refusal("token", "no"))
