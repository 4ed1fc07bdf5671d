"""How much of the messages of each host is read again. Pure."""

from __future__ import annotations

# A host that sends messages with gaps would make its readers read all its messages for each of
# them: so much, in bytes of records, is read again in so many seconds. The snapshot of a large host
# has 20 MB.
MAX_BYTES = 64 * 1024 * 1024
PERIOD_SECONDS = 60.0
# What a message costs besides its records.
_MESSAGE_BYTES = 1024


class Budget:
    """What was read again of each host, in the period that began when it was first read."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[float, int]] = {}

    def allows(self, host: str, now: float) -> bool:
        """Return whether messages of a host may be read again, at a time in seconds."""
        began, spent = self._spent.get(host, (now, 0))
        if now - began >= PERIOD_SECONDS:
            del self._spent[host]
            return True
        return spent < MAX_BYTES

    def spend(self, host: str, now: float, size: int) -> None:
        """Note that a message was read again."""
        began, spent = self._spent.get(host, (now, 0))
        self._spent[host] = (began, spent + _MESSAGE_BYTES + size)
