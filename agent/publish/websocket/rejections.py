"""Refused requests and evicted clients: how long the server waits for a client, the reasons to drop
one, their counters and log lines."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from websockets.frames import CloseCode

from ...log import LineLimit

# From the connection to the end of its request.
HANDSHAKE_SECONDS = 10.0
# Without a byte being read by a subscriber, while a message waits for it.
STALL_SECONDS = 30.0
# From the close frame, or a reply, to the end of the connection; and for the end of the agent.
CLOSE_SECONDS = 1.0
# What a client may send on average, and at once. The server has no use for it.
INBOUND_BYTES_PER_SECOND = 4096
INBOUND_BYTES = 64 * 1024


class Refusal(NamedTuple):
    """Why a request is refused: the HTTP status, the message in the reply, whether it is logged
    too, and further headers of the reply."""

    status: int
    message: str
    is_logged: bool = False
    headers: tuple[tuple[str, str], ...] = ()


class Overload(NamedTuple):
    """Why a subscription is closed as soon as it is made, with code 1013."""

    message: str


class Eviction(NamedTuple):
    """Why a client is disconnected: the label of the counter, the WebSocket close code (None before
    the WebSocket handshake is complete), and the reason in the close frame and the log."""

    kind: str
    code: CloseCode | None
    message: str


TOO_SLOW = Eviction(
    "slow", CloseCode.TRY_AGAIN_LATER, f"too slow: no data read for {STALL_SECONDS:.0f} s"
)
FLOODING = Eviction(
    "flood",
    CloseCode.POLICY_VIOLATION,
    f"too much data sent; the limit is {INBOUND_BYTES_PER_SECOND} bytes/s",
)
HANDSHAKE_TIMEOUT = Eviction(
    "handshake", None, f"no complete request within {HANDSHAKE_SECONDS:.0f} s"
)
TOO_MANY_HANDSHAKES = Eviction("handshake", None, "too many handshakes in progress")

# Labels of refusals without an HTTP status: no HTTP request, no TLS handshake.
MALFORMED, NO_TLS = "malformed", "tls"


class RejectionLog:
    """Counters of refusals and evictions, and their log lines, which are limited in number."""

    def __init__(self) -> None:
        self.refusals: Counter[str] = Counter()  # By HTTP status, close code or label.
        self.evictions: Counter[str] = Counter()  # By kind.
        self._limit = LineLimit("about clients")

    def refused(self, client: str, label: str, message: str | None = None) -> None:
        """Count a refused client; log the message, if any."""
        self.refusals[label] += 1
        if message is not None:
            self._log(f"refused {client}: {message}")

    def evicted(self, client: str, eviction: Eviction) -> None:
        """Count and log an evicted client."""
        self.evictions[eviction.kind] += 1
        self._log(f"disconnected {client}: {eviction.message}")

    def _log(self, message: str) -> None:
        self._limit.log(message, time.monotonic())
