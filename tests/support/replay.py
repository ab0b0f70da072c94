# SPDX-License-Identifier: Apache-2.0
"""A server's state that keeps a log, and the log's replay: what workers were sent follows from it bit for bit."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from dgs.room import Room
from dgs.server import ServerState
from dgs.server.state import Mirror, Snapshot
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec


class Recorded(ServerState):
    """A state that keeps a log: pushes by the version they made, pulls and mirrors in the order of each mirror's."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.first = self.snapshot().theta
        self.pushes: dict[int, tuple[Tensor, Tensor]] = {}
        self.pulls: list[
            tuple[int, int, Tensor, Codec, Tensor, Tensor]
        ] = []  # mirror, version, counts, …, reply
        self.mirrors: list[tuple[Mirror, Tensor]] = []  # kept, so that no other has its id; and as it began
        self.snapshots: list[Snapshot] = []

    def push_sparse(self, indices: Tensor, values: Tensor) -> int | None:
        kept = indices.clone(), values.clone()
        made = super().push_sparse(indices, values)
        assert made is not None
        self.pushes[made] = kept
        return made

    def pull(self, mirror: Mirror, counts: Tensor, codec: Codec, room: Room) -> tuple[int, Selection]:
        version, selection = super().pull(mirror, counts, codec, room)
        indices, values = selection.compact()
        self.pulls.append((id(mirror), version, counts, codec, indices.clone(), values.clone()))
        return version, selection

    def mirror(self, snapshot: Snapshot) -> Mirror:
        self.snapshots.append(snapshot)
        return super().mirror(snapshot)

    def mirror_of(self, weights: Tensor) -> Mirror:
        made = super().mirror_of(weights)
        self.mirrors.append((made, weights.clone()))
        return made


def replay(log: Recorded) -> None:
    """Does all that is in the log again, one after another; fails where a bit is another."""
    again = ServerState(log.layout, log.first, device=torch.device("cpu"), sampled=log.sampled)
    mirrors = {id(mirror): again.mirror_of(began) for mirror, began in log.mirrors}
    pulls, snapshots = defaultdict(list), defaultdict(list)
    for name, version, *pull in log.pulls:
        pulls[version].append((mirrors[name], *pull))
    for snapshot in log.snapshots:
        snapshots[snapshot.version].append(snapshot.theta)
    for version in range(log.version + 1):
        if version:
            assert again.push_sparse(*log.pushes[version]) == version
        for theta in snapshots[version]:
            assert torch.equal(theta, again.snapshot().theta)
        for mirror, counts, codec, indices, values in pulls[version]:
            found = again.pull(mirror, counts, codec, again.room())[1].compact()
            assert torch.equal(found[0], indices) and torch.equal(found[1], values)
    assert torch.equal(again.snapshot().theta, log.snapshot().theta)
    for mirror, _ in log.mirrors:
        assert torch.equal(mirrors[id(mirror)].weights, mirror.weights)
