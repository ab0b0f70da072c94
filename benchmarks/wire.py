# SPDX-License-Identifier: Apache-2.0
"""The packer: bytes per kept element against the entropy, and time against torch's own pickling of a sparse message.

python benchmarks/wire.py [--numel 11173962] [--density 0.01 0.001] [--repeats 9]
"""

from __future__ import annotations

import argparse
import io
import math

import torch
from harness import heavy_tailed, median_ms, table
from torch import Tensor

from dgs_ext import ops, wire
from dgs_ext.wire import Codec, Header, Kind


def entropy_bits(density: float) -> float:
    """Bits per index of a random subset of that density."""
    p = density
    return -(math.log2(p) + (1 - p) / p * math.log2(1 - p)) if p < 1 else 0.0


def pickled(indices: Tensor, values: Tensor) -> int:
    """The bytes of torch.save: int64 indices and float32 values."""
    file = io.BytesIO()
    torch.save((indices, values), file)
    return file.tell()


def row(numel: int, density: float, codec: Codec, repeats: int) -> tuple[object, ...]:
    """Measures one codec at one density, after a round trip that must give back what went in."""
    k = int(numel * density)
    indices = torch.randperm(numel, generator=torch.Generator().manual_seed(1))[:k].sort().values
    values = heavy_tailed(k, 2)
    ops.quantize_(values, int(codec))
    indices, values = indices[values != 0], values[values != 0]
    k = indices.numel()
    starts, nnz = torch.tensor([0, k]), torch.tensor([k])
    out = torch.empty(wire.frame_capacity(k, codec, numel=numel), dtype=torch.uint8)
    header = Header(kind=Kind.PUSH, codec=codec)
    got_indices, got_values = torch.empty_like(indices), torch.empty_like(values)

    def encode() -> int:
        return wire.encode_sparse(out, header, b"", indices, values, starts, nnz, numel)

    length = encode()

    def decode() -> object:
        return wire.decode(
            out[:length], numel=numel, fingerprint=None, indices=got_indices, values=got_values
        )

    decode()
    if not (torch.equal(indices, got_indices) and torch.equal(values, got_values)):
        raise SystemExit("the round trip changed the message: no timing is worth printing")
    bits = 8 * (length - wire.HEADER_BYTES) / k - 8 * codec.width
    encode_ms, decode_ms = median_ms(encode, repeats), median_ms(decode, repeats)
    save_ms = median_ms(lambda: pickled(indices, values), repeats)
    size = pickled(indices, values)
    return (
        f"{codec.name.lower()} {density:g}",
        length / k,
        bits,
        entropy_bits(density),
        4 * numel / length,
        encode_ms,
        decode_ms,
        k / encode_ms / 1e3,
        k / decode_ms / 1e3,
        size / length,
        save_ms / encode_ms,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numel", type=int, default=11_173_962)
    parser.add_argument("--density", type=float, nargs="+", default=[0.01, 0.001])
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    columns = ("message", "B/element", "index bits", "entropy", "dense/this", "encode ms", "decode ms")
    columns += ("enc M/s", "dec M/s", "pickle/this", "pickle time/this")
    codecs = (Codec.FLOAT32, Codec.FLOAT16, Codec.BFLOAT16)
    rows = [row(args.numel, d, c, args.repeats) for d in args.density for c in codecs]
    print(table(f"sparse frames of {args.numel} parameters", columns, rows))


if __name__ == "__main__":
    main()
