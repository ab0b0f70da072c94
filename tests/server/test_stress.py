# SPDX-License-Identifier: Apache-2.0
"""Many workers that come, go, die and come back at random, and in the end every invariant, bit for bit.

`make stress` makes 10,000 exchanges; DGS_STRESS_EXCHANGES says how many, DGS_STRESS_SEED which.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import torch
from replay import Recorded, replay

from dgs.errors import FrameError, TransportError
from dgs.weights import digest

if TYPE_CHECKING:
    from conftest import Puppet, Run

WORKERS = 32
SEED = int(os.environ.get("DGS_STRESS_SEED", "0"))
LONG = timedelta(seconds=60)


class Life:
    """One worker after another in a thread: what it does next is drawn, and so is when something cuts its link."""

    def __init__(self, run: Run, number: int, exchanges: itertools.count[int], goal: int) -> None:
        self._run, self._exchanges, self._goal = run, exchanges, goal
        self._chance = random.Random(f"{SEED} {number}")
        self._values = torch.Generator().manual_seed(1000 * SEED + number)
        self.done: list[str] = []
        self.others: list[Life] = []
        self.error: BaseException | None = None
        self.puppet = self._join()
        self.thread = threading.Thread(target=self._live, name=f"worker-{number}")

    def _join(self) -> Puppet:
        puppet = self._run.puppet(None)
        puppet.w = puppet.worker.join(LONG).theta.clone()
        return puppet

    def _live(self) -> None:
        try:
            while (number := next(self._exchanges)) < self._goal:
                self._once(number)
        except BaseException as error:
            self.error = error

    def _once(self, number: int) -> None:
        """The first of all lives' actions are one of each kind after another, so that none is left to chance."""
        kinds = (self._push, self._restart, self._look, self._die, self._pause, self._garbage, self._leave)
        action = self._chance.choices(kinds, (100, 2, 2, 2, 2, 1, 1))[0]
        if number < 3 * len(kinds):
            action = kinds[number % len(kinds)]
        self.done.append(action.__name__)
        time.sleep(self._chance.expovariate(1000))
        if self._chance.random() < 0.02:
            self._chance.choice(self.others).cut(self._chance.random() < 0.5)
        try:
            action()
        except (TransportError, FrameError):
            self.done.append("rejoin")
            self.puppet.w = self.puppet.worker.rejoin()[1].theta.clone()

    def _push(self) -> None:
        self.puppet.push_some(self._values, self._chance.choice((0, 1, 20, 400)))

    def _restart(self) -> None:
        self.puppet.w = self.puppet.worker.restart().theta.clone()

    def _look(self) -> None:
        assert self.puppet.worker.look().theta.numel() == self.puppet.w.numel()

    def _die(self) -> None:
        """Without a word; another takes its place."""
        self.puppet.link.interrupt()
        self.puppet.link.close()
        self.puppet.worker._hang_up()
        self.puppet = self._join()

    def _leave(self) -> None:
        self.puppet.worker.close()
        self.puppet = self._join()

    def _pause(self) -> None:
        """Another process goes on where this one paused: without a snapshot, unless its place was given away."""
        held, w = digest(self.puppet.w), self.puppet.w
        self.puppet.worker.close("paused", digest=held)
        self.puppet = self._run.puppet(None)
        model = self.puppet.worker.resume(LONG, held)
        self.puppet.w = w if model is None else model.theta.clone()

    def _garbage(self) -> None:
        self.puppet.link.send(torch.randint(0, 256, (100,), dtype=torch.uint8), LONG)
        self._push()

    def cut(self, server_side: bool) -> None:
        """From another thread, at any moment: the link is gone."""
        try:
            link = self.puppet.link
        except AssertionError:  # between two links
            return
        (link._peer if server_side else link).interrupt()  # type: ignore[attr-defined]


def _stress(run: Run, exchanges: int) -> list[Life]:
    """All lives to their end."""
    counted = itertools.count()
    lives = [Life(run, number, counted, exchanges) for number in range(WORKERS)]
    for life in lives:
        life.others = lives
    for life in lives:
        life.thread.start()
    for life in lives:
        life.thread.join()
    for life in lives:
        if life.error is not None:
            raise life.error
    for life in lives:  # whose link was cut at the very end
        try:
            life.puppet.push_some(torch.Generator().manual_seed(1))
        except (TransportError, FrameError):
            life.puppet.w = life.puppet.worker.rejoin()[1].theta.clone()
    return lives


@pytest.mark.parametrize(
    "exchanges",
    [400, pytest.param(int(os.environ.get("DGS_STRESS_EXCHANGES", "10000")), marks=pytest.mark.slow)],
)
def test_whatever_happens_the_mirrors_are_the_workers_and_the_log_replays(
    serve: Callable[..., Run], exchanges: int
) -> None:
    run = serve(
        Recorded, world_size=None, heartbeat=1.0, heartbeat_timeout=120.0, rejoin_timeout=60.0, grace=60.0,
        codec_down=("float32", "bfloat16", "int8")[SEED % 3], max_workers=1024,
    )  # fmt: skip
    assert isinstance(run.state, Recorded)
    lives = _stress(run, exchanges)
    held = {life.puppet.worker.welcome.rank: life.puppet for life in lives if life.puppet.worker.welcome}
    assert len(held) == WORKERS
    sessions = {s.worker.rank: s for s in run.server._roster.sessions()}
    for rank, puppet in held.items():
        mirror = sessions[rank].exchange.mirror
        assert mirror is not None and torch.equal(mirror.weights, puppet.w), f"worker {rank}"
        assert sessions[rank].worker.applied == puppet.worker.sequence
    run.end()
    replay(run.state)
    done = {name for life in lives for name in life.done}
    assert done == {"_push", "_restart", "_look", "_die", "_pause", "_garbage", "_leave", "rejoin"}
    assert run.state.version >= exchanges / 2
