# SPDX-License-Identifier: Apache-2.0
"""The parts of the server alone: the lock, and the buffers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dgs.buffers import BufferStore, pack, unpack
from dgs.errors import ProtocolError
from dgs.server.lock import SharedLock

SPEC = [("mean", "float32", (3,)), ("count", "int64", ())]


def _together(*actions: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def run(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,), daemon=True) for action in actions]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not any(t.is_alive() for t in threads), "a thread starves or is deadlocked"
    assert errors == []


def test_readers_are_together() -> None:
    lock, barrier = SharedLock(), threading.Barrier(3, timeout=60)

    def read() -> None:
        with lock.shared():
            barrier.wait()  # passed only if all three hold the lock at once

    _together(read, read, read)


def test_a_writer_is_alone() -> None:
    lock = SharedLock()
    inside = {"readers": 0, "writers": 0}
    seen: list[tuple[int, int]] = []
    count = threading.Lock()

    def enter(kind: str, step: int) -> None:
        with count:
            inside[kind] += step
            seen.append((inside["readers"], inside["writers"]))

    def work(kind: str) -> None:
        for _ in range(150):
            with lock.shared() if kind == "readers" else lock.exclusive():
                enter(kind, 1)
                time.sleep(0)
                enter(kind, -1)

    _together(*[lambda: work("readers")] * 4, *[lambda: work("writers")] * 3)
    assert {w for _, w in seen} == {0, 1}
    assert not any(r and w for r, w in seen)


def test_a_writer_gets_in_among_readers_that_never_stop() -> None:
    lock, written = SharedLock(), threading.Event()

    def read() -> None:
        while not written.is_set():
            with lock.shared():
                time.sleep(0.001)

    def write() -> None:
        time.sleep(0.05)
        for _ in range(20):
            with lock.exclusive():
                time.sleep(0)
        written.set()

    _together(read, read, read, write)


def test_a_reader_gets_in_among_writers_that_never_stop() -> None:
    lock, read_all = SharedLock(), threading.Event()

    def write() -> None:
        while not read_all.is_set():
            with lock.exclusive():
                time.sleep(0.001)

    def read() -> None:
        time.sleep(0.05)
        for _ in range(20):
            with lock.shared():
                time.sleep(0)
        read_all.set()

    _together(write, write, write, read)


@pytest.mark.parametrize("way", ["shared", "exclusive"])
def test_the_lock_is_free_after_an_exception(way: str) -> None:
    lock = SharedLock()
    with pytest.raises(ValueError), getattr(lock, way)():
        raise ValueError

    def both() -> None:
        with lock.exclusive():
            pass
        with lock.shared():
            pass

    _together(both)


def _store(policy: str) -> BufferStore:
    return BufferStore(SPEC, {"mean": torch.full((3,), -1.0), "count": torch.tensor(1)}, policy)


def _packed(mean: float, count: int) -> Tensor:
    return pack({"mean": torch.full((3,), mean), "count": torch.tensor(count)}, SPEC)


@pytest.mark.parametrize(
    ("policy", "mean", "count"), [("mean", 3.0, 30), ("first", 4.0, 10), ("none", -1.0, 1)]
)
def test_buffers_by_policy(policy: str, mean: float, count: int) -> None:
    store = _store(policy)
    assert store.current()["mean"][0] == -1.0, "the server's own until a worker has sent some"
    store.update(2, _packed(100.0, 1))
    store.update(2, _packed(2.0, 30))
    store.update(1, _packed(4.0, 10))
    now = unpack(store.packed(), SPEC)
    assert now["mean"].tolist() == [mean] * 3 and int(now["count"]) == count
    assert store.nbytes == 20 == store.packed().numel()


def test_buffers_that_do_not_fit_are_refused() -> None:
    store = _store("mean")
    store.update(1, _packed(4.0, 10))
    with pytest.raises(ProtocolError, match="buffers of 19 bytes came, 20 were expected"):
        store.update(1, _packed(5.0, 10)[:-1])
    assert store.current()["mean"][0] == 4.0


def test_statistics_that_are_not_finite_are_left_out_of_the_mean() -> None:
    store = _store("mean")
    store.update(1, _packed(float("nan"), 10))
    store.update(2, _packed(2.0, 5))
    assert store.current()["mean"][0] == 2.0 and int(store.current()["count"]) == 10


def test_a_mask_of_minus_infinity_stays_one() -> None:
    store = _store("mean")
    for rank in (1, 2):
        store.update(rank, _packed(-float("inf"), 10))
    assert store.current()["mean"].tolist() == [-float("inf")] * 3


@pytest.mark.parametrize(
    ("values", "together"),
    [
        (torch.tensor([[1 + 2j], [3 - 2j]]), 2 + 0j),
        (torch.tensor([[7], [9]], dtype=torch.uint16), 9),
        (torch.tensor([[True], [False]]), True),
        (torch.tensor([[1.0], [2.0]], dtype=torch.bfloat16), 1.5),
    ],
    ids=["complex64", "uint16", "bool", "bfloat16"],
)
def test_buffers_of_every_kind_come_together(values: Tensor, together: object) -> None:
    spec = [("b", str(values.dtype).removeprefix("torch."), (1,))]
    store = BufferStore(spec, {"b": values[0]}, "mean")
    for rank, value in enumerate(values):
        store.update(rank + 1, pack({"b": value}, spec))
    now = store.current()["b"]
    assert now.dtype == values.dtype and now.item() == together


def test_the_statistics_of_the_dead_count_only_where_there_are_no_others() -> None:
    store = _store("mean")
    store.update(1, _packed(1000.0, 10))
    store.forget(1)
    assert store.current()["mean"][0] == 1000.0, "better than none"
    store.update(2, _packed(2.0, 10))
    assert store.current()["mean"][0] == 2.0
    store.update(1, _packed(4.0, 10))
    assert store.current()["mean"][0] == 3.0, "it has come back"


def test_a_model_without_buffers_sends_none() -> None:
    store = BufferStore([], {}, "mean")
    store.update(1, torch.empty(0, dtype=torch.uint8))
    assert store.nbytes == 0 and store.packed().numel() == 0 and store.current() == {}
