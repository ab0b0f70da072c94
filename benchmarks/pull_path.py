# SPDX-License-Identifier: Apache-2.0
"""A pull from the lock to the encoded frame, against the memory floor and against plain torch, in turn."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import floors
import models
import plain_torch
import torch
from harness import Contestant, in_turn
from steps import STEPS, under_way

from dgs.frames import Packer
from dgs.server import ServerState
from dgs.server.budget import Budget
from dgs.server.desks import Desk
from dgs_ext import ops
from dgs_ext.wire import Codec, Header, Kind

CPU = torch.device("cpu")


@dataclass(frozen=True)
class PullPath:
    """Medians in milliseconds, and the best of each."""

    model: str
    threads: int
    density: float
    pull_ms: float
    with_frame_ms: float
    floor_ms: float
    plain_ms: float
    least: dict[str, float]

    @property
    def times_floor(self) -> float:
        return self.with_frame_ms / self.floor_ms

    @property
    def faster(self) -> float:
        """Than plain torch, which makes no frame."""
        return self.plain_ms / self.with_frame_ms


def measure(model: str, threads: int, repeats: int, density: float = 0.01) -> PullPath:
    """The server's own `pull` and packing, in the room that a desk of the default settings has.

    θ and the mirror are those of the kernels' benchmark.
    """
    torch.set_num_threads(threads)
    layout = models.layout(model)
    p = under_way(layout, CPU)
    STEPS["pull"].run(p, ops)  # what is selected is an operand of the floor
    STEPS["pull"].before(p)  # type: ignore[misc]
    state = ServerState(layout, p.velocity[0], device=CPU)
    room = Desk(state, Budget(layout).most(density, Codec.FLOAT32)).room
    mirror, packer, counts = state.mirror_of(p.residual[0]), Packer(layout), layout.counts(density)
    header = Header(Kind.PULL, Codec.FLOAT32, fingerprint=layout.fingerprint)

    def pull() -> ops.Selection:
        return state.pull(mirror, counts, Codec.FLOAT32, room)[1]

    def undo() -> None:
        """As the mirror was, to rounding: else each pull would find less."""
        ops.sparse_add_([mirror.weights], layout.offsets, room.of(counts), subtract=True)

    packer.sparse(header, b"{}", pull())
    floor = floors.contestants("pull", p)
    plain = [c for c in plain_torch.contestants("pull", p) if c.name == "topk"]
    mine = [
        Contestant("pull", pull, undo),
        Contestant("with frame", lambda: packer.sparse(header, b"{}", pull()), undo),
    ]
    times = in_turn([*mine, *floor, *plain], CPU, repeats, 20.0)
    ms = {name: statistics.median(t) for name, t in times.items()}
    return PullPath(
        model, threads, density, ms["pull"], ms["with frame"], min(ms[c.name] for c in floor), ms["topk"],
        {name: min(t) for name, t in times.items()},
    )  # fmt: skip
