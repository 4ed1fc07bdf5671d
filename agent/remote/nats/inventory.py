"""Which hosts of a fleet are silent. Pure."""

from __future__ import annotations

from collections.abc import Sequence

# An agent sends a heartbeat every 15 seconds at least.
SILENT_SECONDS = 45.0
# A message that is read again has the same time, but for clocks that are set.
_CLOCK_SECONDS = 1.0
# Hosts that a sentence names.
_MAX_NAMED = 5


class Inventory:
    """The hosts of a fleet, and when each was heard, in seconds on one clock."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}
        self._silent: set[str] = set()

    def note_message(self, host: str, at: float) -> bool:
        """Note a message of a host, which may be read again; return whether a silent host sends
        again."""
        before = self._heard.get(host, at)
        self._heard[host] = max(before, at)
        if host in self._silent and at > before + _CLOCK_SECONDS:
            self._silent.remove(host)
            return True
        return False

    def restart(self, now: float) -> None:
        """Count the silence of all hosts from now on: without a connection, none can be heard."""
        for host in self._heard.keys() - self._silent:
            self._heard[host] = now

    def take_silent(self, now: float) -> list[str]:
        """Return the hosts that have become silent since the last call, sorted."""
        found = [
            host
            for host, at in self._heard.items()
            if now - at > SILENT_SECONDS and host not in self._silent
        ]
        self._silent.update(found)
        return sorted(found)


def named(hosts: Sequence[str]) -> str:
    """Return the names of hosts, as a part of a sentence: at most a few of them."""
    if len(hosts) <= _MAX_NAMED:
        return ", ".join(hosts)
    return f"{', '.join(hosts[:_MAX_NAMED])} and {len(hosts) - _MAX_NAMED} more hosts"
