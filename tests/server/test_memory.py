# SPDX-License-Identifier: Apache-2.0
"""What a server holds for each worker, and that it does not grow with exchanges."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from waiting import until

from dgs.frames import Packer
from dgs.layout import Layout
from dgs.room import Room
from dgs.server import ServerState
from dgs.server.desks import Desk
from dgs_ext.selection import Selection
from dgs_ext.wire import Codec, Header, Kind

if TYPE_CHECKING:
    from conftest import Puppet, Run

PERIOD = 4  # puppets' pushes repeat: 1, 20, 200 and 1000 entries


def _exchange(puppets: list[Puppet], times: int) -> None:
    for i in range(times):
        random = torch.Generator().manual_seed(i % PERIOD)
        puppets[i % len(puppets)].push_some(random, (1, 20, 200, 1000)[i % PERIOD])


def _storage() -> tuple[int, int]:
    """Bytes of all tensors alive in this process, each storage once, and how many objects there are."""
    gc.collect()
    objects = gc.get_objects()
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in objects if type(t) is Tensor
    }
    return sum(storages.values()), len(objects)


def test_memory_is_flat_over_exchanges(serve: Callable[..., Run]) -> None:
    run = serve(world_size=None)
    puppets = [run.puppet(None).join() for _ in range(3)]
    _exchange(puppets, 60)
    assert 3 * 4 * run.layout.numel < _storage()[0], "mirrors at least are counted"

    def flat() -> bool:
        """More than once only if answers are on their way at once that were not before: their room is kept."""
        before, objects = _storage()
        _exchange(puppets, 300)
        after, more = _storage()
        return after <= before + 4096 and more <= objects + 100

    until(flat, "as much memory as before", 120)


def test_a_worker_costs_a_mirror(serve: Callable[..., Run]) -> None:
    """Where a pull is selected, a push unpacked and an answer packed belongs to the desks."""
    run = serve(world_size=None, density_down=0.01)
    _exchange([run.puppet(None).join() for _ in range(12)], 48)
    model = 4 * run.layout.numel
    for session in run.server._roster.sessions():
        mirror = session.exchange.mirror
        assert mirror is not None and mirror.weights.untyped_storage().nbytes() == model
        own = vars(session) | vars(session.exchange)
        held = {name for name, v in own.items() if isinstance(v, (Packer, Room, Desk, Tensor))}
        assert held == set()
    idle = run.server._reception._shared.desks._idle
    until(lambda: idle, "the last answer is sent")
    assert len(idle) < 6, "those that were on their way at once, by chance, and not one for each worker"
    assert all(packer._out.numel() < model / 4 for packer in idle), "of small answers, not of a snapshot"


def test_messages_that_grow_a_little_are_packed_and_unpacked_in_the_same_room() -> None:
    layout = Layout([("w", (300_000,))])
    ours, theirs = Packer(layout), Packer(layout)
    rooms: list[set[int]] = [set(), set(), set()]
    for entries in range(10_000, 20_000, 100):
        indices = torch.arange(entries) * 3
        sent = Selection(indices, torch.ones(entries), torch.tensor([0, entries]), torch.tensor([entries]))
        header = Header(Kind.PUSH, Codec.FLOAT32, fingerprint=layout.fingerprint)
        decoded = theirs.decode(ours.sparse(header, b"", sent))
        assert torch.equal(theirs.entries(decoded)[0], indices)
        for room, buffer in zip(rooms, (ours._out, theirs._indices, theirs._values), strict=True):
            room.add(buffer.numel())
    assert all(len(room) <= 5 for room in rooms), "a quarter more each time: 1.25^4 > 2"


def test_a_pull_is_selected_where_its_push_was_unpacked() -> None:
    layout = Layout([("w", (1_000, 300))])
    state = ServerState(layout, torch.zeros(300_000), device=torch.device("cpu"))
    desk = Desk(state, layout.counts(0.1))
    for entries in (1_000, 30_000, 40_000):
        indices = torch.arange(entries) * 3
        sent = Selection(indices, torch.ones(entries), torch.tensor([0, entries]), torch.tensor([entries]))
        header = Header(Kind.PUSH, Codec.FLOAT32, fingerprint=layout.fingerprint)
        decoded = desk.packer.decode(Packer(layout).sparse(header, b"", sent))
        pushed = desk.packer.entries(decoded)
        assert torch.equal(pushed[0], indices)
        pulled = desk.room.of(layout.counts(0.1))
        there = [t.data_ptr() for t in (pulled.indices, pulled.values)]
        assert (there == [t.data_ptr() for t in pushed]) is (entries <= 30_000), "a larger one needs its own"
