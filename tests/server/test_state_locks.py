# SPDX-License-Identifier: Apache-2.0
"""Invariant 5 at its root: nothing reads θ while a push writes it, and no two pushes write it at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from replay import Recorded, replay
from waiting import until

from dgs.layout import Layout
from dgs.server import ServerState
from dgs.server.state import Snapshot
from dgs_ext import ops
from dgs_ext.wire import Codec

N = 100
CPU = torch.device("cpu")


class Held:
    """A function that tells when it is called, and goes on when it is let go."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.inside, self.go = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.inside.set()
        assert self.go.wait(60)
        return self._function(*args, **keywords)


class Bench:
    """A state of N zeros, what can be done with it, and where each is held: inside what its lock is for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.state = ServerState(Layout([("w", (N,))]), torch.zeros(N), device=CPU)
        self._mirror, self._out = self.state.mirror_of(torch.zeros(N)), torch.zeros(N)
        self._places: dict[str, tuple[Any, str]] = {
            "pull": (ops, "pull"),
            "snapshot": (self._out, "copy_"),
            "behind": (torch, "dist"),
            "push_sparse": (ops, "sparse_overflow"),
            "push_dense": (ops, "dense_add_"),
            "load": (self.state._theta, "copy_"),
        }

    def hold(self, name: str) -> Held:
        where, what = self._places[name]
        held = Held(getattr(where, what))
        self._patch.setattr(where, what, held)
        return held

    def do(self, name: str) -> Any:
        """What it saw: the version, of a read; what it made, of a write."""
        return getattr(self, f"_{name}")()

    def _pull(self) -> tuple[int, float]:
        counts, room = torch.tensor([N]), self.state.room()
        version, selection = self.state.pull(self._mirror, counts, Codec.FLOAT32, room)
        return version, float(selection.compact()[1].sum())

    def _snapshot(self) -> tuple[int, float]:
        snapshot = self.state.snapshot(self._out)
        return snapshot.version, float(snapshot.theta.sum())

    def _behind(self) -> float:
        return self.state.behind(self._mirror)

    def _push_sparse(self) -> int | None:
        return self.state.push_sparse(torch.arange(N), -torch.ones(N))

    def _push_dense(self) -> int | None:
        return self.state.push_dense(-torch.ones(N))

    def _load(self) -> None:
        self.state.load(Snapshot(1, torch.ones(N)))

    def waits(self, readers: int, writers: int) -> bool:
        """Whether so many wait. Under the lock's own lock: who only comes by holds that, and is not seen."""
        lock = self.state._lock
        with lock._changed:
            return (lock._readers_waiting, lock._writers_waiting) == (readers, writers)


READS, WRITES = ("pull", "snapshot", "behind"), ("push_sparse", "push_dense", "load")
BEFORE = {"pull": (0, 0.0), "snapshot": (0, 0.0), "behind": 0.0}
AFTER = {"pull": (1, float(N)), "snapshot": (1, float(N)), "behind": float(N) ** 0.5}


def _wait_or_end(bench: Bench, second: Future[Any], readers: int, writers: int) -> None:
    until(lambda: bench.waits(readers, writers) or second.done(), "the second waits")
    assert not second.done(), "it did not wait"


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("read", READS)
def test_a_push_waits_for_who_reads(monkeypatch: pytest.MonkeyPatch, read: str, write: str) -> None:
    bench = Bench(monkeypatch)
    held = bench.hold(read)
    with ThreadPoolExecutor(2) as threads:
        try:
            first = threads.submit(bench.do, read)
            until(held.inside.is_set)
            second = threads.submit(bench.do, write)
            _wait_or_end(bench, second, 0, 1)
        finally:
            held.go.set()
    assert first.result() == BEFORE[read]
    assert bench.state.version == 1


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("read", READS)
def test_who_reads_waits_for_a_push(monkeypatch: pytest.MonkeyPatch, read: str, write: str) -> None:
    bench = Bench(monkeypatch)
    held = bench.hold(write)
    with ThreadPoolExecutor(2) as threads:
        try:
            threads.submit(bench.do, write)
            until(held.inside.is_set)
            second = threads.submit(bench.do, read)
            _wait_or_end(bench, second, 1, 0)
        finally:
            held.go.set()
    assert second.result() == AFTER[read]


def test_pushes_are_applied_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    held = bench.hold("push_sparse")
    with ThreadPoolExecutor(2) as threads:
        try:
            first = threads.submit(bench.do, "push_sparse")
            until(held.inside.is_set)
            second = threads.submit(bench.do, "push_dense")
            _wait_or_end(bench, second, 0, 1)
        finally:
            held.go.set()
    assert (first.result(), second.result()) == (1, 2)
    assert bench.state.snapshot().theta.tolist() == [2.0] * N


def test_readers_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    held = bench.hold("pull")
    with ThreadPoolExecutor(2) as threads:
        try:
            threads.submit(bench.do, "pull")
            until(held.inside.is_set)
            assert threads.submit(bench.do, "snapshot").result(60) == (0, 0.0)
        finally:
            held.go.set()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several threads that call ops mostly wait for each other's, on shared cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_log_of_threads_on_a_large_model_replays(one_thread: None) -> None:
    """So large that pulls without the lock, which read θ for as long as pushes take, do not."""
    numel = 1_000_000
    layout = Layout([("a", (500, 1000)), ("b", (500, 1000))])
    state = Recorded(layout, torch.zeros(numel), device=CPU)
    generator = torch.Generator().manual_seed(1)
    at = [(torch.rand(numel, generator=generator) < 0.1).nonzero().view(-1) for _ in range(3)]
    updates = [(indices, torch.randn(indices.numel(), generator=generator)) for indices in at]
    done = threading.Event()

    def push() -> None:
        try:
            for i in range(20):
                state.push_sparse(*updates[i % 3])
        finally:
            done.set()

    def pull() -> None:
        mirror, room, counts = state.mirror(state.snapshot()), state.room(), layout.counts(0.01)
        while not done.is_set():
            state.pull(mirror, counts, Codec.FLOAT32, room)

    with ThreadPoolExecutor(3) as threads:
        for future in [threads.submit(work) for work in (push, pull, pull)]:
            future.result()
    replay(state)
