"""Pages over plain HTTP beside the feed; and /healthz: whether polls complete on time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ...stream.feed import Feed

PLAIN = "text/plain; charset=utf-8"
# A poll is late when it takes longer than this many intervals and this many seconds together.
LATE_INTERVALS, LATE_SECONDS = 2.0, 1.0


class Reply(NamedTuple):
    """The content of a page."""

    status: int
    content_type: str
    body: bytes


Page = Callable[[], Reply]


def health(feed: Feed, interval: float) -> Reply:
    """Return status 200 while polls, one every ``interval`` seconds, complete on time, else 503."""
    if feed.snapshot is None:
        return Reply(503, PLAIN, b"the first poll has not completed\n")
    age = feed.age()
    if age > LATE_INTERVALS * interval + LATE_SECONDS:
        return Reply(503, PLAIN, f"the last poll completed {age:.1f} s ago\n".encode())
    return Reply(200, PLAIN, b"ok\n")
