"""Many WebSocket subscribers in one process: ``python -m bench.crowd URL COUNT``.

It prints ``ready`` when all are connected, and at the end of its input a JSON object: the time of
each message → (subscribers that got it, seconds until the last one had it). The clients do the
minimum, as the server is measured.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from datetime import datetime
from urllib.parse import urlsplit

_TIME = re.compile(rb'"event":"open".*?"time":"([^"]+)"')
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_CONNECT_SECONDS = 60.0


def subscriber(url: str) -> socket.socket:
    """Connect and complete the handshake."""
    parts = urlsplit(url)
    assert parts.hostname
    made = socket.create_connection((parts.hostname, parts.port or 80), _CONNECT_SECONDS)
    request = (
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    made.sendall(request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += made.recv(4096)
    if b" 101 " not in answer.splitlines()[0]:
        raise SystemExit(f"the handshake failed: {answer.splitlines()[0].decode()}")
    made.setblocking(False)
    return made


def main() -> None:
    """Subscribe, and read until standard input ends."""
    url, count = sys.argv[1], int(sys.argv[2])
    selector = selectors.DefaultSelector()
    for _ in range(count):
        selector.register(subscriber(url), selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    arrived: dict[str, tuple[int, float]] = {}
    while True:
        for key, _mask in selector.select():
            if key.fileobj is sys.stdin:
                delays = {
                    text: (seen, last - _seconds(text)) for text, (seen, last) in arrived.items()
                }
                print(json.dumps(delays), flush=True)
                return
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(65536)
            if not data:
                raise SystemExit("a subscriber was disconnected")
            for found in _TIME.findall(data):
                text = found.decode()
                seen, _last = arrived.get(text, (0, 0.0))
                arrived[text] = (seen + 1, time.time())


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
