"""Who was refused and who was cut off: counted by reason, and said.

Of clients only so much is said that a hostile one does not drown the rest. It knows nothing of
connections.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

from websockets.frames import CloseCode

from ...log import LineLimit


class Eviction(NamedTuple):
    """Why a client is cut off: the ``kind`` that is counted, the code it is closed with, None where
    there is nobody to close it, and a sentence."""

    kind: str
    code: CloseCode | None
    sentence: str


SLOW = Eviction("slow", CloseCode.TRY_AGAIN_LATER, "too slow: it took nothing of a message in time")
FLOOD = Eviction("flood", CloseCode.POLICY_VIOLATION, "it sends too much")
LATE = Eviction("handshake", None, "its request did not come in time")
CROWDED = Eviction("handshake", None, "too many handshakes are under way")

# Refusals without an HTTP status.
MALFORMED, NO_TLS = "malformed", "tls"


class Tally:
    """``refusals`` by HTTP status, close code or word; ``evictions`` by kind."""

    def __init__(self) -> None:
        self.refusals: Counter[str] = Counter()
        self.evictions: Counter[str] = Counter()
        self._limit = LineLimit("about clients")

    def refused(self, name: str, reason: str, sentence: str | None = None) -> None:
        """A client was refused; where there is a sentence it is said."""
        self.refusals[reason] += 1
        if sentence is not None:
            self._say(f"{name} is refused: {sentence}")

    def evicted(self, name: str, why: Eviction) -> None:
        """A client is cut off."""
        self.evictions[why.kind] += 1
        self._say(f"{name} is cut off: {why.sentence}")

    def _say(self, message: str) -> None:
        self._limit.log(message, asyncio.get_running_loop().time())
