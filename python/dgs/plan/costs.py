# SPDX-License-Identifier: Apache-2.0
"""What worker and server compute for an exchange, in seconds: a line in the parameters and in the entries sent."""

from __future__ import annotations

from dataclasses import dataclass

from .sizes import Size


@dataclass(frozen=True, slots=True)
class Cost:
    """`fixed` seconds, and so many for each parameter and for each entry."""

    fixed: float = 0.0
    per_parameter: float = 0.0
    per_entry: float = 0.0

    def of(self, numel: int, entries: int) -> float:
        """Seconds for a model of `numel` parameters and so many entries."""
        return self.fixed + self.per_parameter * numel + self.per_entry * entries


@dataclass(frozen=True, slots=True)
class Costs:
    """The machine's share of an exchange.

    Args:
        select: the worker's step up to the entries to send: a pass over gradient and state.
        pack: to quantise and pack them, and to unpack and apply what comes back.
        serve: the server's part: decode and apply a push; select, quantise and pack the reply.
        dense_worker, dense_server: the same of a dense method, where every parameter is an entry.
        optimizer: the step of synchronous SGD, which dense all-reduce takes instead.
        source: where the figures come from, in words.
    """

    select: Cost
    pack: Cost
    serve: Cost
    dense_worker: Cost
    dense_server: Cost
    optimizer: Cost
    source: str

    def worker(self, numel: int, up: Size, down: Size, dense: bool) -> tuple[float, float]:
        """Seconds to select and to pack."""
        entries = up.entries + down.entries
        if dense:
            return self.optimizer.of(numel, 0), self.dense_worker.of(numel, entries)
        return self.select.of(numel, up.entries), self.pack.of(0, entries)

    def server(self, numel: int, up: Size, down: Size, dense: bool) -> float:
        """Seconds for a push and its reply."""
        return (self.dense_server if dense else self.serve).of(numel, up.entries + down.entries)


# What --measure gave for ResNet-18 and GPT-2 (1.2 and 12 × 10^7 parameters) on a Zen 5 core, AVX2, one thread.
STATED = Costs(
    select=Cost(fixed=1e-3, per_parameter=0.7e-9),
    pack=Cost(per_entry=12e-9),
    serve=Cost(fixed=5e-4, per_parameter=0.6e-9, per_entry=14e-9),
    dense_worker=Cost(per_entry=1.6e-9),
    dense_server=Cost(per_entry=4e-9),
    optimizer=Cost(fixed=1e-3, per_parameter=1.1e-9),
    source="stated (one thread of a Zen 5 core, no GPU); --measure takes this machine's",
)
