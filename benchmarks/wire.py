# SPDX-License-Identifier: Apache-2.0
"""The packer: bytes per kept element against the entropy, and elements per second, against what else could be sent.

    python benchmarks/wire.py --out out/wire                   # ResNet-18, half a minute on a quiet machine
    python benchmarks/wire.py --codec float32 --density 0.01   # some
    python benchmarks/wire.py --page docs/benchmarks.md        # all, into the page
    python benchmarks/wire.py --smoke                          # seconds

Every message is packed, unpacked and compared before it is timed, by all contestants in turn; times are medians.
Rates are of kept entries, in one thread; packing is all that encode_sparse does, checks and checksum included, and
so is unpacking. The others: the same entries copied as they lie in memory (12 bytes each; this is the floor), int32
indices and float32 values, pairs of float64, the int32 + float32 message through zlib (level 1) and zstd (level 3,
where Python has it or the package zstandard is installed), and torch.save. --out takes wire.json and wire.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import models
import torch
import wire_page
from harness import Contestant, heavy_tailed, in_turn, table
from report import machine
from torch import Tensor
from wire_others import Other, others
from wire_plot import draw

from dgs.layout import Layout
from dgs_ext import ops, wire
from dgs_ext.frame_types import VALUE_BLOCK
from dgs_ext.selection import Selection
from dgs_ext.wire import Codec, Header, Kind

CPU = torch.device("cpu")
COLUMNS = (
    "message",
    "kept",
    "B/kept",
    "index bits",
    "entropy",
    "pack M/s",
    "x floor",
    "unpack M/s",
    "x floor",
)
# What is asked at 1 % of random indices: bytes per kept entry, and for float32 million entries a second each way.
ASKED_BYTES = {"float32": 5.05, "float16": 3.05, "bfloat16": 3.05, "int8": 2.1, "sign": 1.2}
ASKED_BITS, ASKED_RATE = 0.15, 300.0


@dataclass(frozen=True)
class Row:
    """One codec, or one of the others, on one selection."""

    message: str
    density: float
    indices: str
    kept: int
    bytes_per_kept: float
    index_bits: float | None
    entropy: float
    pack_ms: float
    unpack_ms: float
    pack_floors: float
    unpack_floors: float

    def rate(self, ms: float) -> float:
        """Million kept entries a second."""
        return self.kept / ms / 1e3


@dataclass(frozen=True)
class Packed:
    """A frame that has been there and back: its size, what is in it, and the two contestants."""

    length: int
    counts: list[int]  # of entries, for each segment
    value_bytes: int
    pack: Contestant
    unpack: Contestant


def entropy_bits(layout: Layout, counts: list[int]) -> float:
    """Bits per index of random subsets of those sizes, one of each segment."""
    total = 0.0
    for segment, k in zip(layout.segments, counts, strict=True):
        total += math.lgamma(segment.numel + 1) - math.lgamma(k + 1) - math.lgamma(segment.numel - k + 1)
    return total / math.log(2) / sum(counts)


def selected(layout: Layout, density: float, clustered: bool) -> Selection:
    """The largest of each segment: anywhere, or in rows of 64 of which all or none are large."""
    x = heavy_tailed(layout.numel, 1)
    if clustered:
        rows = heavy_tailed((layout.numel + 63) // 64, 2).exp2()
        x *= rows.repeat_interleave(64)[: layout.numel]
    counts = layout.counts(density)
    selection = Selection.allocate(counts)
    ops.select([x], layout.offsets, counts, selection)
    return selection


def value_bytes(of_segments: list[Tensor], codec: Codec) -> int:
    """What the values take of a frame: with codecs in blocks, scales and counts too (docs/wire_format.md, 2.3)."""
    if not codec.in_blocks:
        return round(codec.width * sum(int((values != 0).sum()) for values in of_segments))
    table = 2 if codec is Codec.INT8 else 3
    of_code = codec.width - table / VALUE_BLOCK
    blocks = [block for values in of_segments for block in values.split(VALUE_BLOCK)]
    kept = [n for block in blocks if (n := int((block != 0).sum()))]
    return sum(table + math.ceil(n * of_code) for n in kept)


def packed(selection: Selection, layout: Layout, codec: Codec) -> Packed:
    """Packs, unpacks and compares."""
    sent = Selection(selection.indices, selection.values.clone(), selection.starts, selection.nnz)
    ops.quantize_selection_(sent, layout.offsets, int(codec))
    slots = sent.indices.numel()
    capacity = wire.frame_capacity(slots, codec, numel=layout.numel, segments=len(layout.segments))
    out = torch.empty(capacity, dtype=torch.uint8)
    header = Header(kind=Kind.PUSH, codec=codec)
    rest = (sent.indices, sent.values, sent.starts, sent.nnz, layout.numel)
    length = wire.encode_sparse(out, header, b"", *rest)
    frame = out[:length]
    to = {"indices": torch.empty(slots, dtype=torch.int64), "values": torch.empty(slots)}

    def unpack() -> wire.Decoded:
        return wire.decode(frame, numel=layout.numel, fingerprint=None, **to)

    count = unpack().count
    indices, values = sent.compact()
    kept = values != 0
    compare(codec.name, (to["indices"][:count], to["values"][:count]), (indices[kept], values[kept]))
    pairs = zip(sent.starts.tolist(), sent.nnz.tolist(), strict=False)
    of_segments = [sent.values[start : start + n] for start, n in pairs]
    pack = Contestant(f"{codec.name} pack", lambda: wire.encode_sparse(out, header, b"", *rest))
    counts = [int((values != 0).sum()) for values in of_segments]
    unpacking = Contestant(f"{codec.name} unpack", unpack)
    return Packed(length, counts, value_bytes(of_segments, codec), pack, unpacking)


def compare(name: str, found: tuple[Tensor, Tensor], sent: tuple[Tensor, Tensor]) -> None:
    """Ends the program where a message is not what was sent."""
    if not all(torch.equal(a, b) for a, b in zip(found, sent, strict=True)):
        raise SystemExit(f"{name}: the round trip changed the message: no timing is worth printing")


def contestants(frames: dict[Codec, Packed], rivals: list[Other]) -> list[Contestant]:
    """All that are timed."""
    ours = [c for f in frames.values() for c in (f.pack, f.unpack)]
    theirs = [
        (Contestant(f"{o.name} pack", o.pack), Contestant(f"{o.name} unpack", o.unpack)) for o in rivals
    ]
    return ours + [c for pair in theirs for c in pair]


def measure(layout: Layout, density: float, clustered: bool, codecs: list[Codec], repeats: int) -> list[Row]:
    """All codecs and all others on one selection."""
    selection = selected(layout, density, clustered)
    frames = {codec: packed(selection, layout, codec) for codec in codecs}
    entries = selection.compact()
    rivals = others(entries)
    for other in rivals:
        other.pack()
        compare(other.name, other.unpack(), entries)
    ms = {
        name: statistics.median(times)
        for name, times in in_turn(contestants(frames, rivals), CPU, repeats, 5.0).items()
    }
    kind, floor = "clustered" if clustered else "random", rivals[0].name

    def row(name: str, counts: list[int], length: int, index_bits: float | None) -> Row:
        kept, pack, unpack = sum(counts), ms[f"{name} pack"], ms[f"{name} unpack"]
        return Row(
            name.lower(), density, kind, kept, length / kept, index_bits, entropy_bits(layout, counts), pack, unpack,
            pack / ms[f"{floor} pack"], unpack / ms[f"{floor} unpack"],
        )  # fmt: skip

    rows = []
    for codec, frame in frames.items():
        bits = 8 * (frame.length - wire.HEADER_BYTES - frame.value_bytes) / sum(frame.counts)
        rows.append(row(codec.name, frame.counts, frame.length, bits))
    whole = selection.nnz.tolist()
    return rows + [row(other.name, whole, other.length, None) for other in rivals]


def cells(row: Row) -> tuple[object, ...]:
    """A row as it is printed."""
    bits = "-" if row.index_bits is None else f"{row.index_bits:.2f}"
    return (
        row.message, row.kept, f"{row.bytes_per_kept:.3f}", bits, f"{row.entropy:.2f}",
        row.rate(row.pack_ms), row.pack_floors, row.rate(row.unpack_ms), row.unpack_floors,
    )  # fmt: skip


def asked(row: Row) -> str:
    """What is asked of a codec at 1 % of random indices, and whether it is so."""
    most = ASKED_BYTES[row.message]
    assert row.index_bits is not None
    over = row.index_bits - row.entropy
    met = row.bytes_per_kept <= most and over <= ASKED_BITS
    text = f"  {row.message}: {row.bytes_per_kept:.3f} bytes (<= {most}), indices {over:+.3f} bits over their entropy"
    text += f" (<= {ASKED_BITS})"
    if row.message == "float32":
        pack, unpack = row.rate(row.pack_ms), row.rate(row.unpack_ms)
        met = met and min(pack, unpack) >= ASKED_RATE
        text += f", {pack:.0f} and {unpack:.0f} million entries/s (>= {ASKED_RATE:.0f})"
    return f"{text}: {'met' if met else 'NOT met'}"


def save(record: dict[str, Any], folder: Path) -> None:
    """Writes wire.json and wire.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wire.json").write_text(json.dumps(record, indent=1) + "\n")
    about = f"{record['model']} on one core of {record['machine']['cpu']}"
    draw(record["rows"], about, folder / "wire.png")
    print(f"\n{folder / 'wire.json'}, {folder / 'wire.png'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=models.SHAPES, default="resnet18")
    parser.add_argument("--density", type=float, nargs="+", default=[0.1, 0.01, 0.001, 0.0001])
    parser.add_argument("--codec", nargs="+", default=[c.name.lower() for c in Codec if c is not Codec.BYTES])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a folder for wire.json and wire.png")
    parser.add_argument(
        "--page", type=Path, help="docs/benchmarks.md: write the tables there, the rest beside it"
    )
    parser.add_argument("--smoke", action="store_true", help="a small model, two runs")
    args = parser.parse_args()
    if args.smoke:
        args.model, args.density, args.repeats = "tiny", [0.01], 2
    torch.set_num_threads(args.threads)
    layout, codecs = models.layout(args.model), [Codec[name.upper()] for name in args.codec]
    began, rows = machine(CPU), []
    print(f"{began['cpu']}, torch {began['torch']}, {args.threads} threads, load {began['load']:.2f}")
    for clustered in (False, True):
        for density in args.density:
            part = measure(layout, density, clustered, codecs, args.repeats)
            title = f"\n{args.model}, {100 * density:g} %, {part[0].indices}"
            print(table(title, COLUMNS, [cells(row) for row in part]))
            rows += part
    aimed = [r for r in rows if r.density == 0.01 and r.indices == "random" and r.message in ASKED_BYTES]
    if aimed and args.model == "resnet18":
        print("\n".join(["\nAsked at 1 %, random:", *map(asked, aimed)]))
    about = began | {"load at the end": os.getloadavg()[0]}
    record = {"machine": about, "model": args.model, "threads": args.threads, "repeats": args.repeats}
    record["rows"] = [asdict(row) for row in rows]
    for folder in filter(None, (args.out, args.page and args.page.parent)):
        save(record, folder)
    if args.page is not None:
        wire_page.write(args.page, record)


if __name__ == "__main__":
    main()
