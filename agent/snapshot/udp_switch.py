"""Whether the UDP events of a trace instance are read: on request, and while there are not too many
of them."""

from __future__ import annotations

from ..kernel.trace.routes import MAX_PER_SECOND
from ..kernel.trace.udp_events import disable_udp, enable_udp, has_udp

# After too many events they are tried again in so many seconds: one second of them a minute.
RETRY_SECONDS = 60.0
NOT_IN_INSTANCE = (
    "no UDP events: the trace instance of the service does not have them; run sudo sockagent "
    "events enable --udp"
)
FLOODED = (
    f"more than {MAX_PER_SECOND} datagrams a second are sent: UDP events are off for "
    f"{RETRY_SECONDS:.0f} s, and UDP sockets that no poll saw are reported without a process"
)


class UdpSwitch:
    """The state of the UDP events of one instance. Times are in seconds of any clock.

    ``is_own``: the agent switches them on and off. Otherwise they belong to the service's instance,
    which the agent can only read.
    """

    def __init__(self, path: str, *, is_own: bool) -> None:
        self._path = path
        self._is_own = is_own
        self._off: str | None = None
        self._retry_at: float | None = None

    def set_up(self) -> str | None:
        """Switch the events on if possible; return why they are off, None if they are on.
        Blocking."""
        try:
            if has_udp(self._path):
                return None
            return enable_udp(self._path) if self._is_own else NOT_IN_INSTANCE
        except OSError as error:
            return f"no UDP events: {error.filename or self._path}: {error.strerror}"

    def switch_off(self) -> None:
        """Switch the events off, if they are the agent's own. Blocking."""
        if self._is_own:
            try:
                disable_udp(self._path)
            except OSError:
                return  # The instance was removed.

    def set_off(self, reason: str | None) -> None:
        """Record why the events are off; None: they are on."""
        self._off = reason

    def note_flood(self, now: float) -> None:
        """Record that there were too many events."""
        self._retry_at = now + RETRY_SECONDS

    def is_flooded(self, now: float) -> bool:
        """Return whether it is too early to read events again after there were too many."""
        return self._retry_at is not None and now < self._retry_at

    def retry(self) -> bool:
        """Return whether there were too many events, and forget that."""
        was, self._retry_at = self._retry_at, None
        return was is not None

    @property
    def is_on(self) -> bool:
        """Return whether events are read."""
        return self._off is None and self._retry_at is None

    @property
    def off(self) -> str | None:
        """Return why events are not read, as a sentence; None if they are read."""
        return self._off if self._retry_at is None else FLOODED
