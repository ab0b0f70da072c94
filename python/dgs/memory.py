# SPDX-License-Identifier: Apache-2.0
"""Memory for what lives as long as a run: the methods' state, θ and the mirrors. On huge pages where Linux has them.

`scratch` is for what is reused from message to message.

A step reads and writes all of it and then picks out entries all over it: with pages of 4 KiB the translation of
addresses is some tenth of its time. Kernels set to `madvise` give huge pages only to those who ask.
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

_HUGE = 2 << 20  # bytes of a page; where they are larger the kernel takes what it can
_OWN = 64 << 10  # bytes from which on scratch is a mapping of its own


def zeros(numel: int, device: torch.device | None = None) -> Tensor:
    """float32 [numel] of zeros on `device` (default: the CPU), in memory of its own."""
    nbytes = 4 * numel
    whole = nbytes // _HUGE * _HUGE
    if (device is not None and device.type != "cpu") or not whole or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(numel, device=device)
    # An anonymous mapping is zero until it is written, and goes back to the system with its last tensor.
    area = mmap.mmap(-1, nbytes + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    first = -torch.frombuffer(area, dtype=torch.uint8, count=1).data_ptr() % _HUGE
    try:
        area.madvise(mmap.MADV_HUGEPAGE, first, whole)  # not the rest, of which a whole page would be taken
    except OSError:
        return torch.zeros(numel)  # a kernel without them
    return torch.frombuffer(area, dtype=torch.float32, count=numel, offset=first)


def scratch(numel: int, dtype: torch.dtype) -> Tensor:
    """[numel] of `dtype` on the CPU, not initialised: for buffers that are as large as the largest message so far.

    Large ones have a mapping of their own: what is never written takes no memory, and all of it goes back to the
    system when one is outgrown. malloc keeps such holes, one for each size and thread.
    """
    nbytes = numel * dtype.itemsize
    if nbytes < _OWN or not hasattr(mmap, "MAP_ANONYMOUS"):
        return torch.empty(numel, dtype=dtype)
    area = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(area, dtype=dtype, count=numel)


def copy_of(values: Tensor, device: torch.device) -> Tensor:
    """`values` as float32 on `device`, in memory of its own as `zeros` has it."""
    return zeros(values.numel(), device).view(values.shape).copy_(values)
