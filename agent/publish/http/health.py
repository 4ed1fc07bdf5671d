"""Whether the agent is well, for those who ask over HTTP. It knows the feed, and nothing of
connections and procfs."""

from __future__ import annotations

from ...stream.feed import Feed

# A poll is late when it comes so many intervals, and so many seconds, behind the last one.
LATE_INTERVALS, LATE_SECONDS = 2.0, 1.0
PLAIN = "text/plain; charset=utf-8"


def health(feed: Feed, interval: float) -> tuple[int, str, bytes]:
    """200 while polls complete on time, else 503 with the reason."""
    if feed.snapshot is None:
        return 503, PLAIN, b"the first poll is not through\n"
    age = feed.age()
    if age > LATE_INTERVALS * interval + LATE_SECONDS:
        return 503, PLAIN, f"the last poll was {age:.1f} s ago\n".encode()
    return 200, PLAIN, b"ok\n"
