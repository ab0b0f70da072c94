# SPDX-License-Identifier: Apache-2.0
"""A refused or broken push changes nothing, and a broken session ends alone."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from dgs import protocol, weights
from dgs.errors import DivergedError, LinkClosedError, ProtocolError, RefusedError, TransportError
from dgs_ext import wire
from dgs_ext.wire import Codec, Kind

if TYPE_CHECKING:
    from conftest import Puppet, Run

SECONDS = timedelta(seconds=30)


def _frame(puppet: Puppet, *, meta: dict[str, Any] | None = None, **header: Any) -> Tensor:
    """A good push of two entries, with parts of it replaced."""
    worker = puppet.worker
    made = dataclasses.replace(worker._header(Kind.PUSH, Codec.FLOAT32, worker.sequence + 1), **header)
    text = protocol.meta(**{"density": 0.1, "digest": puppet.digest()} | (meta or {}))
    if made.codec is Codec.BYTES:
        return worker._packer.opaque(made, text, torch.ones(8, dtype=torch.uint8))
    update = weights.received(
        puppet.layout, torch.tensor([3, 900]), torch.tensor([1.0, -2.0]), torch.device("cpu")
    )
    return worker._packer.sparse(made, text, update)


def _sealed(frame: Tensor) -> Tensor:
    """`frame` with its checksums made good (docs/wire_format.md, section 1)."""
    frame[56:64] = _bytes(wire.xxh64(frame[64:].clone()), 8)
    frame[12:16] = 0
    frame[12:16] = _bytes(wire.xxh64(frame[:64].clone()) & 0xFFFFFFFF, 4)
    return frame


def _bytes(number: int, count: int) -> Tensor:
    return torch.tensor(list(number.to_bytes(count, "little")), dtype=torch.uint8)


def _everything(run: Run) -> tuple[Any, ...]:
    sessions = run.server._roster.sessions()
    mirrors = [m.weights.clone() for s in sessions if (m := s.exchange.mirror) is not None]
    applied = [(s.worker.rank, s.worker.applied, s.worker.exchanges) for s in sessions]
    return run.now(), run.state.version, mirrors, applied


def _same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return (
        torch.equal(a[0], b[0])
        and a[1] == b[1]
        and len(a[2]) == len(b[2])
        and all(torch.equal(x, y) for x, y in zip(a[2], b[2], strict=True))
        and a[3] == b[3]
    )


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("sequence", {"sequence": 1}),
        ("sequence", {"sequence": 4}),
        ("sequence", {"sequence": 2**64 - 1}),
        ("drift", {"meta": {"digest": [1, "0" * 16]}}),
    ],
    ids=["repeated", "skipped", "far", "drift"],
)
def test_a_refused_push_changes_nothing_and_the_session_goes_on(
    serve: Callable[..., Run], random: torch.Generator, code: str, part: dict[str, Any]
) -> None:
    run = serve()
    a, b = run.puppet(1).join(), run.puppet(2).join()
    for puppet in (a, b, a):
        puppet.push_some(random)
    before = _everything(run)
    a.link.send(_frame(a, **part), SECONDS)
    with pytest.raises(RefusedError) as refused:
        a.worker._receive(Kind.PULL)
    assert refused.value.code == code
    assert _same(_everything(run), before)
    for puppet in (a, b):
        puppet.push_some(random)
    assert run.state.version == 5


def test_a_push_before_the_first_snapshot_is_refused(serve: Callable[..., Run]) -> None:
    run = serve()
    a = run.puppet(1).join()
    session = run.server._roster.sessions()[0]
    session.exchange.mirror = None  # as before the worker's first request
    a.link.send(_frame(a, meta={"digest": None}), SECONDS)
    with pytest.raises(RefusedError, match="before the first snapshot"):
        a.worker._receive(Kind.PULL)
    assert run.state.version == 0 and torch.equal(run.now(), run.theta)


def test_drifted_weights_are_named(serve: Callable[..., Run], random: torch.Generator) -> None:
    run = serve()
    a = run.puppet(1).join()
    a.push_some(random)  # the next digest is of segment 1, "weight"
    a.w[500] += 1e-6
    with pytest.raises(RefusedError, match="the weights of weight ") as refused:
        a.push_some(random)
    assert refused.value.code == "drift" and run.state.version == 1


def _truncated(puppet: Puppet) -> Tensor:
    return _frame(puppet)[:-3]


def _flipped(puppet: Puppet) -> Tensor:
    frame = _frame(puppet)
    frame[-1] ^= 1
    return frame


def _not_finite(puppet: Puppet) -> Tensor:
    frame = _frame(puppet)
    frame[-4:] = torch.tensor([float("nan")]).view(torch.uint8)
    return _sealed(frame)


def _infinite(puppet: Puppet) -> Tensor:
    frame = _frame(puppet)
    frame[-4:] = torch.tensor([float("inf")]).view(torch.uint8)
    return _sealed(frame)


BROKEN: dict[str, tuple[str, Callable[[Puppet], Tensor]]] = {
    "garbage": ("bad_magic", lambda p: torch.full((80,), 7, dtype=torch.uint8)),
    "truncated": ("truncated", _truncated),
    "flipped": ("checksum", _flipped),
    "nan": ("bad_value", _not_finite),
    "inf": ("bad_value", _infinite),
    "fingerprint": ("layout_mismatch", lambda p: _frame(p, fingerprint=12345)),
    "codec": ("holds bytes", lambda p: _frame(p, codec=Codec.BYTES)),
    "kind": ("may not send a SNAPSHOT", lambda p: _frame(p, kind=Kind.SNAPSHOT)),
    "density": ("density must be in", lambda p: _frame(p, meta={"density": 0})),
    "density type": ("density must be in", lambda p: _frame(p, meta={"density": "1"})),
    "digest": ("digest must be", lambda p: _frame(p, meta={"digest": 3})),
    "digest segment": ("names segment 99", lambda p: _frame(p, meta={"digest": [99, "0"]})),
    "buffers": ("must hold bytes", lambda p: _frame(p, kind=Kind.BUFFERS)),
    "goodbye as pull": ("may not send a PULL", lambda p: _frame(p, kind=Kind.PULL)),
}


@pytest.mark.parametrize(("reason", "make"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_frame_ends_its_session_alone_and_changes_nothing(
    serve: Callable[..., Run],
    random: torch.Generator,
    caplog: pytest.LogCaptureFixture,
    reason: str,
    make: Callable[[Puppet], Tensor],
) -> None:
    run = serve()
    bad, good = run.puppet(1).join(), run.puppet(2).join()
    good.push_some(random)
    before = run.now()
    with caplog.at_level(logging.WARNING, "dgs"):
        bad.link.send(make(bad), SECONDS)
        with pytest.raises(LinkClosedError):
            bad.link.receive(SECONDS)
        run.server._roster.sessions()
    assert torch.equal(run.now(), before) and run.state.version == 1
    good.push_some(random)
    report = run.end()
    died = report.workers[0]
    assert died.outcome == "died" and reason in died.reason
    assert "worker 1 died at version 1" in caplog.text
    assert report.died == [1]


def test_an_honest_oversized_frame_leaves_the_server_alive(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve()
    a, b = run.puppet(1).join(), run.puppet(2).join()
    assert a.worker.welcome is not None
    cap = a.worker.welcome.cap
    body = torch.zeros(cap + 1, dtype=torch.uint8)
    frame = a.worker._packer.opaque(a.worker._header(Kind.BUFFERS, Codec.BYTES, 0), b"", body)
    a.link._cap = 2 * cap  # type: ignore[attr-defined]  # a worker that does not keep to the agreement
    a.link.send(frame, SECONDS)
    with pytest.raises(LinkClosedError):
        a.link.receive(SECONDS)
    b.push_some(random)
    assert "passes the session's cap" in run.end().workers[0].reason


def test_buffers_that_do_not_fit_change_nothing(serve: Callable[..., Run]) -> None:
    run = serve()
    puppet = run.puppet(1).join()
    puppet.worker.send_buffers(torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(LinkClosedError):
        puppet.link.receive(SECONDS)
    assert torch.equal(run.buffers.current()["mean"], torch.zeros(7))
    reasons = [w.reason for w in run.end().workers]
    assert "buffers of 3 bytes came, 36 were expected" in reasons[0]


@pytest.mark.parametrize("name", ["active", "staleness"])
@pytest.mark.parametrize("value", ["many", None, -1, 1.5, [2], True], ids=str)
def test_a_reply_of_nonsense_is_a_protocol_error(
    serve: Callable[..., Run],
    random: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: object,
) -> None:
    puppet = serve().puppet(1).join()
    read = protocol.parse_meta
    monkeypatch.setattr(protocol, "parse_meta", lambda data: read(data) | {name: value})
    with pytest.raises(ProtocolError, match=f"a reply's {name} must be an integer of at least 0, got "):
        puppet.push_some(random)


def test_a_dropped_worker_rejoins_with_a_snapshot(
    serve: Callable[..., Run], random: torch.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    run = serve()
    a, b = run.puppet(1).join(), run.puppet(2).join()
    for _ in range(3):
        a.push_some(random)
    run.server._roster.sessions()[0].link.interrupt()
    b.push_some(random)
    with pytest.raises(TransportError):
        a.push_some(random)
    with caplog.at_level(logging.WARNING, "dgs"):
        applied, model = a.worker.rejoin()
    assert not applied and torch.equal(model.theta, run.now()) and a.worker.sequence == 3
    assert "joined the server again at version 4, with a fresh snapshot" in caplog.text
    a.w = model.theta.clone()
    a.push_some(random)
    assert run.state.version == 5
    assert len(run.end().workers) == 2, "it is the same worker"


def test_a_push_whose_reply_was_lost_is_not_applied_twice(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve()
    a = run.puppet(1).join()
    a.push_some(random)
    a.link.send(_frame(a), SECONDS)
    assert run.state.wait_beyond(1, 30) == 2
    a.link.interrupt()
    applied, _ = a.worker.rejoin()
    assert applied and a.worker.sequence == 2 and run.state.version == 2


def test_a_run_that_has_diverged_says_which_tensor(serve: Callable[..., Run]) -> None:
    run = serve()
    a = run.puppet(1).join()
    huge = torch.tensor([-3e38])
    a.push(torch.tensor([100]), huge)
    with pytest.raises((DivergedError, RefusedError), match="weight"):
        a.push(torch.tensor([100]), huge)
