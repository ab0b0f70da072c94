# SPDX-License-Identifier: Apache-2.0
"""Who may join: hellos that do not fit, tokens, ranks, and places that are taken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import torch
from waiting import until

from dgs import protocol
from dgs.errors import (
    AuthenticationError,
    DGSError,
    LinkTimeoutError,
    RefusedError,
    ServerUnreachableError,
    TransportError,
)
from dgs.introduction import prove
from dgs.layout import Layout
from dgs.transport import InProcessLink

if TYPE_CHECKING:
    from conftest import Puppet, Run

SECONDS = timedelta(seconds=30)
OTHER_SHAPE = Layout([("bias", (7,)), ("weight", (40, 51)), ("last", (3, 5))])
SUBSET = Layout([("bias", (7,)), ("last", (3, 5))], [("mean", "float32", (7,)), ("count", "int64", ())])
OTHER_BUFFERS = Layout([("bias", (7,)), ("weight", (40, 50)), ("last", (3, 5))], [("mean", "float32", (8,))])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "dgs"):
        yield caplog


@pytest.mark.parametrize(
    ("code", "text", "wrong"),
    [
        ("layout", r"weight \[40, 50\] here, weight \[40, 51\] there", {"layout": OTHER_SHAPE}),
        ("layout", "freeze the others on the server too", {"layout": SUBSET}),
        ("layout", "the buffers: .*8", {"layout": OTHER_BUFFERS}),
        ("method", "method dgs is dense, the server's dgs is sparse", {"dense": True}),
        ("rank", "rank 3 is not a worker's in a world of 3", {"rank": 3, "world_size": 9}),
    ],
    ids=["shape", "subset", "buffers", "kind", "rank"],
)
def test_a_worker_that_does_not_fit_is_refused_on_both_sides(
    serve: Callable[..., Run], log: pytest.LogCaptureFixture, code: str, text: str, wrong: dict[str, Any]
) -> None:
    run = serve()
    with pytest.raises(RefusedError, match=text) as refused:
        run.puppet(**{"rank": 1} | wrong).join()
    assert refused.value.code == code
    assert f"a worker was refused ({code})" in log.text and str(refused.value) in log.text
    run.puppet(1).join().worker.close()
    assert len(run.end().workers) == 1, "the refused one left no trace"


@pytest.mark.parametrize(
    ("code", "text", "field"),
    [
        ("protocol", "speaks protocol 1, the server 4", {"protocol": 1}),
        ("wire", "frames of version 9", {"wire": 9}),
        ("codec", "the worker sends int3, the server reads float32", {"codec": "int3"}),
        ("codec", "the server sends float32, bfloat16, .*, the worker reads int3", {"codecs": ["int3"]}),
        ("rank", "rank 0 is not a worker's", {"rank": 0}),
    ],
    ids=["protocol", "wire", "codec up", "codec down", "rank 0"],
)
def test_another_release_is_refused(
    serve: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, code: str, text: str, field: dict[str, Any]
) -> None:
    run = serve(world_size=None)
    monkeypatch.setattr("dgs.introduction.asdict", lambda hello: asdict(hello) | field)
    with pytest.raises(RefusedError, match=text) as refused:
        run.puppet(1).join()
    assert refused.value.code == code


def test_a_model_of_too_many_tensors_is_refused(
    serve: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = serve()
    monkeypatch.setattr(protocol, "MAX_TENSORS", 2)
    with pytest.raises(RefusedError, match="a model of 3 tensors passes 2"):
        run.puppet(1).join()


@pytest.mark.parametrize(
    ("server", "worker"),
    [("right", "wrong"), ("right", None), (None, "right")],
    ids=["wrong", "missing", "extra"],
)
def test_a_token_must_be_held_by_both(
    serve: Callable[..., Run], log: pytest.LogCaptureFixture, server: str | None, worker: str | None
) -> None:
    run = serve(token=server)
    with pytest.raises(AuthenticationError, match="token"):
        run.puppet(1, token=worker).join()
    run.puppet(1, token=server).join().worker.close()
    until(lambda: "a worker was refused (token)" in log.text)
    assert [w.outcome for w in run.end().workers] == ["finished"], "nothing was kept of the other"
    assert "right" not in log.text and "wrong" not in log.text, "secrets are not logged"


def test_a_server_without_the_token_is_not_believed(serve: Callable[..., Run]) -> None:
    """Nor does the worker's own proof reach it."""
    run = serve(token="right")
    link = run.listener.dial()
    link.tell({"nonce": "n" * 32})
    challenge = link.hear(SECONDS)
    assert challenge["proof"] == protocol.proof("right", "server", "n" * 32, challenge["challenge"])
    with pytest.raises(AuthenticationError, match="server does not hold the token"):
        prove("right", "n" * 32, challenge | {"proof": "0" * 64})
    link.close()


@pytest.mark.parametrize(
    "messages",
    [
        [{}],
        [{"nonce": 3}],
        [{"nonce": "short"}],
        [{"nonce": "n" * 32}, {"protocol": 4}],
        [{"nonce": "n" * 32}, {}],
    ],
    ids=str,
)
def test_a_stranger_is_turned_away_and_leaves_nothing(
    serve: Callable[..., Run], messages: list[dict[str, Any]]
) -> None:
    run = serve()
    link = run.listener.dial()
    for message in messages:
        link.tell(message)
    with pytest.raises(DGSError):
        for _ in range(3):
            protocol.raise_refusal(link.hear(SECONDS))
    until(lambda: run.server.active() == 0)
    run.puppet(1).join()
    assert len(run.end().workers) == 1


def test_two_workers_of_one_rank_the_second_is_refused_while_the_first_lives(
    serve: Callable[..., Run],
) -> None:
    run = serve(heartbeat=20, heartbeat_timeout=100)
    first = run.puppet(1).join()
    with pytest.raises(RefusedError, match="rank 1 is taken by a worker that is alive") as refused:
        run.puppet(1).join()
    assert refused.value.code == "rank"
    first.link.close()
    until(lambda: run.server.active() == 0)
    second = run.puppet(1).join()
    assert second.worker.welcome is not None and second.worker.welcome.rank == 1
    second.worker.close()
    assert [w.outcome for w in run.end().workers] == ["died", "finished"]


def test_a_silent_worker_loses_its_rank_to_another(serve: Callable[..., Run]) -> None:
    run = serve(heartbeat=0.05, heartbeat_timeout=100)
    first = run.puppet(1).join()
    first.worker._heart.stop()  # type: ignore[union-attr]
    time.sleep(0.3)
    run.puppet(1).join()
    assert "another took its rank" in run.end().workers[0].reason


def test_a_worker_without_a_rank_is_given_one(serve: Callable[..., Run]) -> None:
    run = serve(world_size=4)
    ranks = []
    for asked in (None, 3, None):
        puppet = run.puppet(asked, world_size=None).join()
        assert puppet.worker.welcome is not None
        ranks.append(puppet.worker.welcome.rank)
    assert ranks == [1, 3, 2]
    with pytest.raises(RefusedError, match="all 3 ranks of a world of 4 are taken"):
        run.puppet(None, world_size=None).join()


def test_one_that_comes_back_without_a_rank_has_its_old_one(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve(world_size=None)
    a, b = run.puppet(None).join(), run.puppet(None).join()
    b.push_some(random)
    b.link.interrupt()
    _, model = b.worker.rejoin()
    b.w = model.theta.clone()
    assert b.worker.welcome is not None and b.worker.welcome.rank == 2
    b.push_some(random)
    a.push_some(random)
    assert run.server.active() == 2


def test_the_number_of_sessions_is_capped(serve: Callable[..., Run]) -> None:
    run = serve(world_size=None, max_workers=2)
    held = [run.puppet(rank).join() for rank in (1, 2)]
    with pytest.raises(RefusedError, match="the server has its 2 workers") as refused:
        run.puppet(3).join()
    assert refused.value.code == "full"
    held[0].worker.close()
    until(lambda: run.server.active() == 1)
    run.puppet(3).join()


def test_the_number_of_joins_under_way_is_capped(
    serve: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgs.server.roster._MAX_JOINING", 3)
    run = serve()
    joining = run.server._reception.roster._joining
    idle = [run.listener.dial() for _ in range(3)]
    until(lambda: len(joining) == 3)
    with pytest.raises(TransportError):
        run.puppet(1).join()
    idle[0].close()
    until(lambda: len(joining) == 2)
    run.puppet(1).join().worker.close()
    began = time.monotonic()
    run.end()
    assert time.monotonic() - began < 25, "joins that never speak do not hold up the end"


def test_an_idle_join_holds_up_nobody(serve: Callable[..., Run], random: torch.Generator) -> None:
    run = serve()
    idle = run.listener.dial()
    run.puppet(1).join().push_some(random)
    assert run.state.version == 1
    idle.close()


def test_many_join_and_leave_at_once(serve: Callable[..., Run]) -> None:
    run = serve(world_size=None)
    puppets: list[Puppet] = []
    errors: list[BaseException] = []

    def come_and_go(number: int) -> None:
        random = torch.Generator().manual_seed(number)
        try:
            for _ in range(3):
                puppet = run.puppet(None).join()
                puppets.append(puppet)
                puppet.push_some(random)
                puppet.worker.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=come_and_go, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []
    assert run.state.version == 36
    report = run.end()
    assert [w.outcome for w in report.workers] == ["finished"] * 36


class _Deaf(InProcessLink):
    """A link to a server that takes the call and never answers, as a frozen one does."""

    def hear(self, timeout: timedelta) -> dict[str, Any]:
        threading.Event().wait(60)
        raise LinkTimeoutError("never")


def test_a_frozen_server_does_not_hang_a_worker(
    serve: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgs.introduction._PATIENCE", 0.1)
    run = serve()
    puppet = run.puppet(1)
    ends = _Deaf.pair()
    deaf = _Deaf(ends[0]._inbox, ends[0]._outbox)
    deaf._peer = ends[1]
    puppet.worker._dial = lambda timeout: deaf
    began = time.monotonic()
    with pytest.raises(ServerUnreachableError, match="did not answer within"):
        puppet.worker.join(timedelta(seconds=0.2))
    assert time.monotonic() - began < 50
