# SPDX-License-Identifier: Apache-2.0
"""A link measured with the library's own transport: one end answers (`answer`), the other asks (`measure`)."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import torch
from torch import Tensor

from dgs_ext import wire
from dgs_ext.wire import Codec, Header, Kind

from .. import protocol
from ..errors import DGSError, LinkClosedError, ProtocolError
from ..transport import Link as Wire
from ..transport import Listener
from .rates import Link

log = logging.getLogger(__name__)

_SESSION = "probe"
_CAP = 1 << 26  # bytes of a payload
_TIMEOUT = timedelta(seconds=60)
_SMALL, _REPEATS = 1, 15
_FIRST, _LONG_ENOUGH = 1 << 18, 0.25  # bytes of the first large frame; seconds that make it the last


def answer(listener: Listener, links: int | None = None) -> None:
    """Answers whoever measures a link to `listener`, one after another; `links`: how many, None: for ever."""
    served = 0
    while links is None or served < links:
        link = listener.accept(timedelta(seconds=1))
        if link is None:
            continue
        try:
            _answer(link)
        except LinkClosedError:
            log.info("a link was measured")
        except DGSError as error:
            log.warning("a link was not measured: %s", error)
        finally:
            link.close()
        served += 1


def _answer(link: Wire) -> None:
    if link.hear(_TIMEOUT).get("probe") != 1:
        link.tell(protocol.refusal("probe", "this end only measures links: start the server in its place"))
        raise ProtocolError("a worker came to a server that only measures links")
    link.tell({"probe": 1})
    link.open(_SESSION, _CAP, _TIMEOUT)
    while True:
        wanted = protocol.parse_meta(_meta(link.receive(None))).get("reply")
        if not isinstance(wanted, int) or not 0 <= wanted <= _CAP // 2:
            raise ProtocolError(f"a probe must ask for 0 to {_CAP // 2} bytes, got {wanted!r:.40}")
        link.send(_frame(wanted, 0), _TIMEOUT)


def _meta(frame: Tensor) -> bytes:
    return wire.decode(frame, numel=0, fingerprint=None, indices=_INDICES, values=_VALUES).meta


_INDICES, _VALUES = torch.empty(0, dtype=torch.int64), torch.empty(0)


def _frame(size: int, reply: int) -> Tensor:
    """A frame of so many bytes that nothing compresses on its way, which asks for a reply of so many."""
    meta = protocol.meta(reply=reply)
    out = torch.empty(
        wire.frame_capacity(size, Codec.BYTES, numel=0, meta_bytes=len(meta)), dtype=torch.uint8
    )
    body = torch.randint(256, (size,), dtype=torch.uint8)
    return out[: wire.encode_bytes(out, Header(kind=Kind.REQUEST), meta, body)]


def measure(link: Wire) -> Link:
    """Latency and rates of a link whose other end is in `answer`.

    The latency is half of a small exchange's time; what the two ends' threads need to wake up is in it. The rate is
    that of large frames, the slower direction's. Of repeated ones the quickest counts: the link's own, without what
    else went on at its ends.

    Raises:
        ProtocolError: the other end is a server that trains, or something else. TransportError: it went away.
    """
    link.tell({"probe": 1, "nonce": protocol.nonce()})  # which makes a server that trains answer, too
    if link.hear(_TIMEOUT).get("probe") != 1:
        raise ProtocolError(
            "the other end measures no links: start python -m dgs.plan --listen HOST:PORT there"
        )
    link.open(_SESSION, _CAP, _TIMEOUT)
    small = min(_time(link, _SMALL, _SMALL) for _ in range(_REPEATS))
    rate = min(_rate(link, small, up=True), _rate(link, small, up=False))
    return Link(rate, small / 2)


def _rate(link: Wire, small: float, *, up: bool) -> float:
    size = _FIRST
    while True:
        took = _time(link, *((size, _SMALL) if up else (_SMALL, size)))
        if took > _LONG_ENOUGH or 4 * size > _CAP:
            break
        size *= 2
    again = [took, *(_time(link, *((size, _SMALL) if up else (_SMALL, size))) for _ in range(2))]
    return 8 * size / max(1e-9, min(again) - small)


def _time(link: Wire, up: int, down: int) -> float:
    frame = _frame(up, down)
    began = time.perf_counter()
    link.send(frame, _TIMEOUT)
    link.receive(_TIMEOUT)
    return time.perf_counter() - began
