"""Records as a subscriber takes them: those that its filter lets through, joined to chunks.

It knows records and filters, and nothing of history, subscriptions and transports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ..model import Holding
from .encoder import Encoder
from .filters import Filter

# A chunk is at most this many bytes, unless a single record is longer: what one WebSocket message
# may carry, and what is encoded between two turns of the event loop.
CHUNK_BYTES = 256 * 1024
# Lines that are joined at first: of usual length they stay well below that.
_BLOCK = 256


def snapshot_lines(
    encoder: Encoder, holdings: Iterable[Holding], chosen: Filter, seq: int, now: float
) -> Iterator[bytes]:
    """The ``snapshot`` records that a filter lets through."""
    if "snapshot" not in chosen.events:
        return iter(())
    if not chosen.passes_all:
        holdings = filter(chosen.matches, holdings)
    return encoder.holdings(encoder.head("snapshot", seq, now), holdings)


def chunks(lines: Iterable[bytes], most: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Lines joined to chunks of at most so many bytes; a longer line is a chunk of its own."""
    rest = iter(lines)
    count = _BLOCK
    while block := list(islice(rest, count)):
        joined = b"".join(block)
        if len(joined) <= most:
            yield joined
        else:
            yield from _split(block, most)
        # As many of this length as fit, nearly.
        count = max(_BLOCK // 4, most * len(block) * 9 // (len(joined) * 10))


def _split(lines: Iterable[bytes], most: int) -> Iterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > most and gathered:
            yield b"".join(gathered)
            gathered, size = [], 0
        gathered.append(line)
        size += len(line)
    yield b"".join(gathered)
