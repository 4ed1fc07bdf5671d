"""The two further events of a trace instance that show which process sends datagrams over UDP.

They are off unless they are asked for: the kernel writes one for each datagram of a socket that is
not connected. Everything here may block.
"""

from __future__ import annotations

import errno

from ..procfs.files import read
from .events import UDP_EVENTS
from .formats import EventFormat, UnknownFormat, parse_event_format
from .instance import enabled_events, write

# Protocol 17 is UDP; 0x18 is the context of a soft or hard interrupt, in which the current process
# is not the one that sends. A packet that is received and forwarded has another incoming interface
# than 1, the loopback: a program that writes it into a tunnel has not sent it.
UDP_FILTER = "proto==17 && iif==1 && !(common_flags & 0x18)"
REFUSED = "no UDP events: the kernel refused their filter"


def enable_udp(path: str) -> str | None:
    """Switch the events on; return why they stay off, as a sentence. Raises OSError."""
    for event in UDP_EVENTS:
        directory = f"{path}/events/{event}"
        try:
            write(f"{directory}/filter", UDP_FILTER)
            write(f"{directory}/enable", "1")
        except FileNotFoundError:
            disable_udp(path)
            return f"no UDP events: this kernel has no tracepoint {event}"
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            disable_udp(path)
            return REFUSED
    return None


def disable_udp(path: str) -> None:
    """Switch the events off. Raises OSError."""
    for event in UDP_EVENTS:
        try:
            write(f"{path}/events/{event}/enable", "0")
            write(f"{path}/events/{event}/filter", "0")
        except FileNotFoundError:  # This kernel has no such event.
            continue


def has_udp(path: str) -> bool:
    """Return whether the events are on. Raises OSError."""
    return enabled_events(path).issuperset(UDP_EVENTS)


def read_udp_formats(path: str) -> dict[str, EventFormat]:
    """Return the format of each event. Raises UnknownFormat."""
    formats = {}
    for event in UDP_EVENTS:
        try:
            text = read(f"{path}/events/{event}/format").decode()
        except OSError:
            raise UnknownFormat(f"this kernel has no tracepoint {event}") from None
        formats[event] = parse_event_format(event, text)
    return formats
