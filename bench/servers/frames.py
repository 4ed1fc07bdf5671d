"""Data with the time of its receipt, recorded by a separate process.

``python -m bench.servers.frames FILE`` writes what its standard input has to FILE until it ends,
each reading with its time.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Iterator

# Time of receipt in seconds since 1970, length of the data.
_HEAD = struct.Struct("=dI")
# The most that a pipe holds.
_READ_BYTES = 1 << 20


def frame(data: bytes) -> bytes:
    """Return data with the time of its receipt, which is now."""
    return _HEAD.pack(time.time(), len(data)) + data


def frames(data: bytes) -> Iterator[tuple[float, bytes, int]]:
    """Yield complete frames: the time, the data, and the offset of the next frame."""
    at = 0
    while at + _HEAD.size <= len(data):
        when, length = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size
        at = start + length
        if at > len(data):
            return
        yield when, data[start:at], at


def raise_priority() -> None:
    """Run before other programs: delays of this one would count as those of what it receives."""
    os.nice(-10)


def main() -> None:
    """Record standard input."""
    raise_priority()
    with open(sys.argv[1], "wb", buffering=0) as file:
        while data := os.read(0, _READ_BYTES):
            file.write(frame(data))


if __name__ == "__main__":
    main()
