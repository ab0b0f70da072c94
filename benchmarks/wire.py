# SPDX-License-Identifier: Apache-2.0
"""The packer: bytes per kept element against the entropy, and elements per second, against what else could be sent.

    python benchmarks/wire.py                                  # ResNet-18, some minutes
    python benchmarks/wire.py --codec float32 --density 0.01   # some
    python benchmarks/wire.py --smoke                          # seconds

Every message is packed and unpacked once and compared before it is timed, by all contestants in turn; times are
medians. The others: int32 indices and float32 values copied side by side, int64 and float64 pairs, that int32 +
float32 message through zlib (level 1) and zstd (where Python has it), and torch.save of indices and values. Results
go to --out, too.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import models
import torch
from harness import Contestant, heavy_tailed, in_turn, table
from report import machine
from torch import Tensor

from dgs.layout import Layout
from dgs_ext import ops, wire
from dgs_ext.selection import Selection
from dgs_ext.wire import Codec, Header, Kind

CPU = torch.device("cpu")
COLUMNS = ("message", "kept", "B/kept", "index bits", "entropy", "encode M/s", "decode M/s")


@dataclass(frozen=True)
class Row:
    """One codec, or one of the others, on one selection."""

    name: str
    density: float
    indices: str
    kept: int
    bytes_per_kept: float
    index_bits: float | None
    entropy: float
    encode_ms: float
    decode_ms: float | None


def entropy_bits(layout: Layout, density: float) -> float:
    """Bits per index of random subsets of those sizes, one of each segment."""
    total = kept = 0.0
    for segment, k in zip(layout.segments, layout.counts(density).tolist(), strict=True):
        n = segment.numel
        bits = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        total, kept = total + bits / math.log(2), kept + k
    return total / kept


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


def saved(indices: Tensor, values: Tensor) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save((indices, values), file)
    return file.getvalue()


def others(selection: Selection) -> dict[str, tuple[int, Callable[[], object]]]:
    """The size and the packing of each other way to send it."""
    indices, values = selection.compact()
    plain, pairs = (
        torch.empty(2 * indices.numel(), dtype=torch.int32),
        torch.empty(2, indices.numel()).double(),
    )

    def as_int32() -> Tensor:
        k = indices.numel()
        plain[:k].copy_(indices)
        plain[k:].copy_(values.view(torch.int32))
        return plain

    def as_float64() -> None:
        pairs[0].copy_(indices)
        pairs[1].copy_(values)

    found = {
        "int32 + float32": (8 * indices.numel(), as_int32),
        "float64 pairs": (16 * indices.numel(), as_float64),
        "zlib": (
            len(zlib.compress(as_int32().numpy(), 1)),
            lambda: zlib.compress(as_int32().numpy(), 1),
        ),
        "torch.save": (len(saved(indices, values)), lambda: saved(indices, values)),
    }
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
    except ImportError:
        return found
    return found | {
        "zstd": (len(zstd.compress(as_int32().numpy())), lambda: zstd.compress(as_int32().numpy()))
    }


def packed(selection: Selection, layout: Layout, codec: Codec) -> tuple[int, Contestant, Contestant, int]:
    """The frame's length, its packing and unpacking, and how many values it holds; verified."""
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

    def decode() -> wire.Decoded:
        return wire.decode(frame, numel=layout.numel, fingerprint=None, **to)

    count = decode().count
    indices, values = sent.compact()
    if not (
        torch.equal(to["indices"][:count], indices[values != 0])
        and torch.equal(to["values"][:count], values[values != 0])
    ):
        raise SystemExit(f"{codec.name}: the round trip changed the message: no timing is worth printing")
    encode = Contestant(f"{codec.name} encode", lambda: wire.encode_sparse(out, header, b"", *rest))
    return length, encode, Contestant(f"{codec.name} decode", decode), count


def measure(layout: Layout, density: float, clustered: bool, codecs: list[Codec], repeats: int) -> list[Row]:
    """All codecs and all others on one selection."""
    selection = selected(layout, density, clustered)
    frames = {codec: packed(selection, layout, codec) for codec in codecs}
    rivals = others(selection)
    contestants = [c for _, encode, decode, _ in frames.values() for c in (encode, decode)]
    contestants += [Contestant(name, run) for name, (_, run) in rivals.items()]
    ms = {name: statistics.median(t) for name, t in in_turn(contestants, CPU, repeats, 5.0).items()}
    kind, entropy = "clustered" if clustered else "random", entropy_bits(layout, density)
    rows = []
    for codec, (length, encode, decode, kept) in frames.items():
        bits = 8 * (length / kept - codec.width)
        rows.append(
            Row(
                codec.name.lower(),
                density,
                kind,
                kept,
                length / kept,
                bits,
                entropy,
                ms[encode.name],
                ms[decode.name],
            )
        )
    kept = selection.total()
    for name, (length, _) in rivals.items():
        rows.append(Row(name, density, kind, kept, length / kept, None, entropy, ms[name], None))
    return rows


def cells(row: Row) -> tuple[object, ...]:
    """A row as it is printed."""
    bits = "-" if row.index_bits is None else row.index_bits
    speed = "-" if row.decode_ms is None else row.kept / row.decode_ms / 1e3
    bytes_per = f"{row.bytes_per_kept:.3f}"
    return row.name, row.kept, bytes_per, bits, row.entropy, row.kept / row.encode_ms / 1e3, speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=models.SHAPES, default="resnet18")
    parser.add_argument("--density", type=float, nargs="+", default=[0.1, 0.01, 0.001, 0.0001])
    parser.add_argument("--codec", nargs="+", default=[c.name.lower() for c in Codec if c is not Codec.BYTES])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a folder for wire.json")
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
            kind = "clustered" if clustered else "random"
            print(
                table(f"\n{args.model}, {100 * density:g} %, {kind}", COLUMNS, [cells(row) for row in part])
            )
            rows += part
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        record = {"machine": began, "threads": args.threads, "rows": [asdict(row) for row in rows]}
        (args.out / "wire.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
