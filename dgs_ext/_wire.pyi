# SPDX-License-Identifier: Apache-2.0
from typing import Any

import numpy as np
import numpy.typing as npt

_Bytes = npt.NDArray[np.uint8]
_Int64 = npt.NDArray[np.int64]
_Float32 = npt.NDArray[np.float32]
_Chosen = tuple[int, int, int, int, int, int, int]
_Fields = tuple[int, int, int, int, int, int, int, int, int, int]

HEADER_BYTES: int
VERSION: int
MAX_NUMEL: int
VALUE_BLOCK: int

def frame_capacity(entries: int, codec: int, numel: int, segments: int, meta_bytes: int, /) -> int: ...
def encode_sparse(
    out: _Bytes,
    chosen: _Chosen,
    meta: bytes,
    indices: _Int64,
    values: _Float32,
    starts: _Int64,
    nnz: _Int64,
    numel: int,
    /,
) -> int: ...
def encode_dense(out: _Bytes, chosen: _Chosen, meta: bytes, values: _Float32, /) -> int: ...
def encode_bytes(out: _Bytes, chosen: _Chosen, meta: bytes, body: _Bytes, /) -> int: ...
def parse_header(frame: _Bytes, cap: int | None, /) -> _Fields: ...
def decode(
    frame: _Bytes, numel: int, fingerprint: int | None, indices: _Int64, values: _Float32, /
) -> tuple[_Fields, int]: ...
def xxh64(bytes: npt.NDArray[Any], seed: int, /) -> int: ...
def xxh64_bytes(text: bytes, seed: int, /) -> int: ...
