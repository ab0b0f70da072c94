# SPDX-License-Identifier: Apache-2.0
"""Is every codec stable with every method, up and down? Thousands of steps of 16 workers on a small problem.

python benchmarks/stability.py [--steps 5000] [--out out/stability] [--processes 2] [--smoke]

A run is called stable if in its last fifth the loss is at most twice that of float32 both ways, and what workers hold
(velocity or residual) and have not seen (θ - b) at most four times as large. Runs that are in --out already are not
run again.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from harness import table
from least_squares import Outcome, Tails, Training
from resumed import Rows
from tqdm import tqdm

from dgs.methods import METHODS, STRATEGIES
from dgs.server.budget import Plan
from dgs_ext.wire import Codec

WAYS = ("up", "down", "both")
CODECS = [c for c in Codec if c not in (Codec.BYTES, Codec.FLOAT32)]
LOSS, NORMS = 2.0, 4.0  # what is still stable, in those of float32
_WORKERS, _DENSITY = 16, 0.01


@dataclass(frozen=True)
class Case:
    """One run: `codec` goes `way`, and float32 the other."""

    mode: str
    momentum: float
    tails: Tails
    codec: Codec
    way: str
    steps: int

    @property
    def key(self) -> str:
        return f"{self.mode} {self.momentum} {self.tails} {self.codec.name.lower()} {self.way} {self.steps}"

    @property
    def reference(self) -> Case:
        """The same with float32 both ways."""
        return Case(self.mode, self.momentum, self.tails, Codec.FLOAT32, "both", self.steps)


def cases(
    steps: int, modes: Sequence[str], momenta: Sequence[float], tails: Sequence[Tails]
) -> Iterator[Case]:
    """Every method × momentum × codec × way that is not one of no sense, after its reference."""
    for tail in tails:
        for mode in modes:
            for momentum in momenta if "momentum" in STRATEGIES[mode].uses else (0.0,):
                yield Case(mode, momentum, tail, Codec.FLOAT32, "both", steps)
                dense = METHODS[mode].dense
                for codec in CODECS:
                    if not (dense and codec.in_blocks):  # dgs.config refuses it
                        for way in ("up",) if dense else WAYS:
                            yield Case(mode, momentum, tail, codec, way, steps)


def outcome(case: Case) -> tuple[Case, Outcome]:
    """Runs one case."""
    torch.set_num_threads(1)
    up = Codec.FLOAT32 if case.way == "down" else case.codec
    down = Codec.FLOAT32 if case.way == "up" else case.codec
    training = Training(
        case.mode, case.momentum, up, workers=_WORKERS, density=_DENSITY, tails=case.tails,
        pulls=lambda _: Plan(wide, down),
    )  # fmt: skip
    wide = training.layout.counts(_WORKERS * _DENSITY)
    return case, training.run(case.steps)


def stable(found: Outcome, reference: Outcome) -> bool:
    """By the rule that stands above; asgd holds nothing, and has seen everything."""
    return (
        found.loss <= LOSS * reference.loss
        and found.held <= NORMS * reference.held
        and found.behind <= NORMS * reference.behind
    )


def cell(found: Outcome, reference: Outcome) -> str:
    """Loss and what is unseen, in those of float32; marked where it is not stable."""
    behind = found.behind / reference.behind if reference.behind else 1.0
    return f"{found.loss / reference.loss:.2f} / {behind:.1f}" + " ✗" * (not stable(found, reference))


def tables(found: dict[Case, Outcome]) -> str:
    """A table for each way, of loss / ‖θ - b‖ in those of float32."""
    text, references = [], [case for case in found if case == case.reference]
    for way in WAYS:
        rows = []
        for r in references:
            cells = [
                cell(found[case], found[r])
                if (case := Case(r.mode, r.momentum, r.tails, c, way, r.steps)) in found
                else "-"
                for c in CODECS
            ]
            if set(cells) != {"-"}:
                rows.append((f"{r.mode} m = {r.momentum:g}, {r.tails}", f"{found[r].loss:.2e}", *cells))
        columns = ["loss, unseen", "float32", *(c.name.lower() for c in CODECS)]
        text.append(table(f"\n{way}: in those of float32 both ways", columns, rows))
    return "\n".join(text)


def results(cases: Sequence[Case], processes: int) -> Iterator[tuple[Case, Outcome]]:
    """Each case as it is done, in processes of their own if there are several."""
    if processes == 1:
        yield from map(outcome, cases)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(outcome, cases)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=5000, help="of all workers together")
    parser.add_argument("--modes", nargs="+", default=["gd", "dgs", "dgc", "asgd"])
    parser.add_argument("--momenta", nargs="+", type=float, default=[0.0, 0.7, 0.9])
    parser.add_argument("--tails", nargs="+", default=["normal", "heavy"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/stability"))
    parser.add_argument("--smoke", action="store_true", help="some cases, a few steps")
    args = parser.parse_args(arguments)
    if args.smoke:
        args.steps, args.modes, args.momenta, args.tails = 100, ["dgs", "asgd"], [0.7], ["heavy"]
    wanted = list(cases(args.steps, args.modes, args.momenta, args.tails))
    rows = Rows(args.out / "stability.jsonl")
    missing = [case for case in wanted if case.key not in rows]
    for case, made in tqdm(results(missing, args.processes), total=len(missing), desc="runs"):
        rows.add(case.key, asdict(made))
    found = {case: Outcome(**rows[case.key]) for case in wanted}
    print(tables(found))
    bad = [case.key for case, o in found.items() if not stable(o, found[case.reference])]
    print(
        f"\n{len(wanted) - len(bad)} of {len(wanted)} runs are stable" + "".join(f"\nnot: {b}" for b in bad)
    )


if __name__ == "__main__":
    main()
