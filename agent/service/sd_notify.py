"""What a service and systemd tell each other: sd_notify(3), sd_listen_fds(3), the watchdog.

It knows environment variables and their sockets, and nothing of what is told.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

# The first descriptor that is handed over; sd_listen_fds(3).
_FIRST = 3
# A pipe of systemd's that is full makes nobody wait for long.
_SEND_SECONDS = 0.5
# Connections that may wait on a listening socket: its backlog, and some that come meanwhile.
_MOST_WAITING = 10_000


class Notifier:
    """Tells systemd how the service does. Where nobody listens it does nothing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # Abstract.
            self._address = f"\0{self._address[1:]}"
        elif not self._address.startswith("/"):
            self._address = ""
        self.watchdog = _watchdog(environment) if self._address else None  # Seconds.

    @property
    def listens(self) -> bool:
        """Whether anybody does."""
        return bool(self._address)

    def tell(self, **variables: str | int) -> None:
        """Send these variables; what cannot be sent is not worth an end."""
        if not self._address:
            return
        state = "\n".join(f"{name}={value}" for name, value in variables.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
            telling.settimeout(_SEND_SECONDS)
            telling.sendto(state.encode(errors="replace"), self._address)

    def store(self, name: str, descriptor: int) -> None:
        """Give a descriptor into systemd's keeping, for the next run of this unit."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
                telling.settimeout(_SEND_SECONDS)
                telling.connect(self._address)
                socket.send_fds(telling, [f"FDSTORE=1\nFDNAME={name}".encode()], [descriptor])

    def reloading(self) -> None:
        """The configuration is read again; to be followed by READY."""
        self.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """Seconds in which systemd wants to hear of us; None when it does not care."""
    text = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not (text.isascii() and text.isdigit()) or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 1_000_000 or None


def listen_fds(environment: MutableMapping[str, str]) -> dict[str, list[int]]:
    """The descriptors that systemd handed over, by name.

    The variables that tell of them go, so that no child takes them for its own.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return {}
    handed: dict[str, list[int]] = {}
    for index in range(int(count)):
        descriptor = _FIRST + index
        os.set_inheritable(descriptor, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        handed.setdefault(name, []).append(descriptor)
    return handed


def reject_pending(environment: Mapping[str, str]) -> None:
    """End the connections that wait on the sockets that systemd handed over.

    For an agent that cannot serve: systemd starts it anew for each that still waits.
    """
    pid, count = environment.get("LISTEN_PID", ""), environment.get("LISTEN_FDS", "")
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return
    for descriptor in range(_FIRST, _FIRST + int(count)):
        with suppress(OSError), socket.socket(fileno=descriptor) as listening:
            listening.setblocking(False)
            for _ in range(_MOST_WAITING):
                listening.accept()[0].close()
