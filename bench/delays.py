"""One WebSocket subscriber that measures delays: ``python -m bench.delays URL HOSTS``.

It prints ``ready`` when the snapshots of so many hosts are complete. A line on standard input
starts the measurement; at the end of its input it prints a JSON object: ``records`` that came since
then, ``lost`` records, and ``p50`` and ``p99`` of the seconds from the time of a record until it
came. The client does the minimum, as the server is measured.
"""

from __future__ import annotations

import json
import re
import selectors
import sys
import time
from datetime import datetime
from functools import lru_cache
from statistics import median

from .crowd import subscriber

# A line of the feed, after the header of a frame if it is the first one of a message.
_RECORD = re.compile(rb'{"event":"(\w+)","seq":\d+,"time":"([^"]+)"')
_CHANGES = (b"open", b"update", b"close")
_READ_BYTES = 1024 * 1024


@lru_cache(maxsize=64)  # All records of a poll have the same time.
def _seconds(text: bytes) -> float:
    return datetime.fromisoformat(text.decode()).timestamp()


class Delays:
    """The records of a stream, in pieces as they come."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.snapshots = self.lost = 0
        self.measures = False
        self._rest = b""

    def take(self, data: bytes, now: float) -> None:
        """Note the records that came at a time."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            found = _RECORD.search(line)
            if found is None:  # A newline in the header of a frame.
                continue
            event, when = found.groups()
            self.snapshots += event == b"snapshot_end"
            self.lost += event == b"lost"
            if self.measures and event in _CHANGES:
                self.delays.append(now - _seconds(when))

    def summary(self) -> dict[str, float]:
        """Return what was measured."""
        delays = sorted(self.delays)
        if not delays:
            raise SystemExit("no record came")
        p99 = delays[int(len(delays) * 0.99)]
        return {"records": len(delays), "lost": self.lost, "p50": median(delays), "p99": p99}


def main() -> None:
    """Subscribe, and read until standard input ends."""
    url, hosts = sys.argv[1], int(sys.argv[2])
    made, delays = subscriber(url), Delays()
    with selectors.DefaultSelector() as selector:
        selector.register(made, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        is_ready = False
        while True:
            for key, _mask in selector.select():
                if key.fileobj is made:
                    data = made.recv(_READ_BYTES)
                    if not data:
                        raise SystemExit("the subscriber was disconnected")
                    delays.take(data, time.time())
                elif sys.stdin.readline():
                    delays.measures = True
                else:
                    print(json.dumps(delays.summary()), flush=True)
                    return
            if not is_ready and delays.snapshots >= hosts:
                is_ready = True
                print("ready", flush=True)


if __name__ == "__main__":
    main()
