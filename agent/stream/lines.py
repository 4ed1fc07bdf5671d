"""Records as lines, joined to chunks of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ..model import Holding
from .encoder import Encoder
from .filters import Filter

# Size of a chunk, unless a single record is longer: what one WebSocket message may carry, and what
# is encoded between two turns of the event loop.
MAX_CHUNK_BYTES = 256 * 1024
# Records of a one-shot snapshot that are written at a time, about 300 KiB.
SNAPSHOT_CHUNK_LINES = 512


def snapshot_chunks(
    encoder: Encoder, holdings: Iterable[Holding], chosen: Filter, now: float
) -> Iterator[bytes]:
    """Yield the records of a one-shot snapshot that pass a filter, many at a time."""
    if "snapshot" not in chosen.events:
        return
    if not chosen.passes_all:
        holdings = filter(chosen.matches, holdings)
    lines = encoder.holdings(encoder.head("snapshot", 0, now), holdings)
    while chunk := b"".join(islice(lines, SNAPSHOT_CHUNK_LINES)):
        yield chunk


def gather(lines: Iterable[tuple[int, bytes]], max_bytes: int) -> tuple[list[bytes], int | None]:
    """Take pairs of index and line up to a size of the lines, at least one.

    Return the lines, and the index of the first line that did not fit, None where all did.
    """
    gathered: list[bytes] = []
    size = 0
    for index, line in lines:
        size += len(line)
        if size > max_bytes and gathered:
            return gathered, index
        gathered.append(line)
    return gathered, None
