"""The protocols between systemd and a service: sd_notify(3), the watchdog, sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

# SD_LISTEN_FDS_START of sd_listen_fds(3).
_FIRST_FD = 3
# How long a full socket of systemd may block the agent.
_SEND_SECONDS = 0.5
# Connections rejected per listening socket: more than its backlog, as more arrive meanwhile.
_MAX_REJECTED = 10_000


class Notifier:
    """The notification socket of systemd. Without NOTIFY_SOCKET nothing is sent."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # An abstract socket.
            self._address = f"\0{self._address[1:]}"
        elif not self._address.startswith("/"):
            self._address = ""
        self.watchdog_seconds = _watchdog_seconds(environment) if self._address else None

    @property
    def is_connected(self) -> bool:
        """Whether systemd started the agent as a service that notifies."""
        return bool(self._address)

    def send(self, **variables: str | int) -> None:
        """Send these variables. Errors are ignored: the agent works without systemd."""
        state = "\n".join(f"{name}={value}" for name, value in variables.items())
        self._send(state.encode(errors="replace"), [])

    def store_descriptor(self, name: str, descriptor: int) -> None:
        """Store a descriptor in systemd for the next run of the service."""
        self._send(f"FDSTORE=1\nFDNAME={name}".encode(), [descriptor])

    def _send(self, state: bytes, descriptors: list[int]) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.settimeout(_SEND_SECONDS)
            sending.connect(self._address)
            socket.send_fds(sending, [state], descriptors)


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return the timeout of the watchdog; None if it is not enabled for this process."""
    text = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not (text.isascii() and text.isdigit()) or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 1_000_000 or None


def listen_fds(environment: MutableMapping[str, str]) -> dict[str, list[int]]:
    """Return the descriptors passed by systemd, by name, and mark them close-on-exec. Removes the
    variables, so that no child process mistakes the descriptors for its own."""
    count = _listen_fds_count(environment)
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(variable, None)
    passed: dict[str, list[int]] = {}
    for index in range(count):
        descriptor = _FIRST_FD + index
        os.set_inheritable(descriptor, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        passed.setdefault(name, []).append(descriptor)
    return passed


def reject_pending(environment: Mapping[str, str]) -> None:
    """Close the connections that wait on the listening sockets passed by systemd. Must be called
    when the agent cannot serve: systemd starts it again as long as one waits."""
    for descriptor in range(_FIRST_FD, _FIRST_FD + _listen_fds_count(environment)):
        with suppress(OSError), socket.socket(fileno=descriptor) as listening:
            listening.setblocking(False)
            for _ in range(_MAX_REJECTED):
                listening.accept()[0].close()


def _listen_fds_count(environment: Mapping[str, str]) -> int:
    """Return the number of descriptors passed to this process."""
    pid, count = environment.get("LISTEN_PID", ""), environment.get("LISTEN_FDS", "")
    ours = pid == str(os.getpid()) and count.isascii() and count.isdigit()
    return int(count) if ours else 0
