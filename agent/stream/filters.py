"""The filter language, parsed once and used by every subscriber: the same names and values on the
command line and in a query string.

Values of one filter, comma-separated or repeated, are OR-ed; different filters are AND-ed. It knows
holdings, and nothing of transports.
"""

from __future__ import annotations

import re
import socket as sockets
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from ..errors import FilterError
from ..model import (
    DATAGRAM_STATES,
    INET_FAMILIES,
    TCP_STATES,
    UNIX_STATES,
    CgroupInfo,
    Closed,
    Delta,
    Holding,
    Opened,
    Process,
    Updated,
)
from .globs import Globs

Test = Callable[[Holding], bool]

STATES = tuple(dict.fromkeys((*TCP_STATES, *DATAGRAM_STATES, *UNIX_STATES)))
DIRECTIONS = ("inbound", "outbound", "listen")
# The socket records; every other record always comes.
EVENTS = ("snapshot", "open", "update", "close")
_MAX_PORT = 65_535
_GLOB = re.compile(r"[*?\[]")
# Longer than any name that a glob is compared with.
MAX_GLOB_CHARS = 256
# Addresses as numbers: IPv6 from 0 on, and IPv4 behind all of IPv6.
_IPV4 = 1 << 128
_IPV4_BITS = 32
_IPV4_MAPPED = 0xFFFF << _IPV4_BITS  # ::ffff:0:0/96
# Addresses whose numbers are kept, 200 bytes each: those of the newest records, for all filters.
_MAX_ADDRESSES = 8192


class Filter:
    """Which holdings, and which socket records, a subscriber wants.

    Filters made from the same values are equal, so that subscribers can share what is encoded.
    """

    __slots__ = ("_tests", "events", "values")

    def __init__(self, values: Mapping[str, Iterable[str]] | None = None) -> None:
        """``values`` maps names to values, each possibly comma-separated. Raises FilterError."""
        split = {name: _split(name, given) for name, given in (values or {}).items()}
        unknown = split.keys() - FILTERS.keys()
        if unknown:
            name = min(unknown)
            raise FilterError(name, f"there is no filter named {name!r}")
        self.values = frozenset((name, frozenset(given)) for name, given in split.items())
        self._tests: tuple[Test, ...] = tuple(
            FILTERS[name](name, given) for name, given in split.items() if name != "event"
        )
        self.events = frozenset(
            _words("event", split["event"], EVENTS) if "event" in split else EVENTS
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)

    def __and__(self, other: Filter) -> Filter:
        """What both let through."""
        both = Filter()
        both.values = self.values | other.values
        both._tests = self._tests + other._tests
        both.events = self.events & other.events
        return both

    @property
    def passes_all(self) -> bool:
        """Whether every holding matches, so that asking is needless."""
        return not self._tests

    def matches(self, holding: Holding) -> bool:
        """Whether the holding is one that the subscriber wants."""
        for test in self._tests:  # noqa: SIM110 (a generator for all() takes 0.3 µs more)
            if not test(holding):
                return False
        return True

    def apply(self, delta: Delta) -> Delta | None:
        """Return a delta as the subscriber sees it; None where it is hidden.

        What an update brings into the filter opens, what it takes out closes, for the reason
        ``filtered``: so a fold of the deltas stays right.
        """
        match delta:
            case Opened(holding):
                return delta if "open" in self.events and self.matches(holding) else None
            case Closed(holding):
                return delta if "close" in self.events and self.matches(holding) else None
            case Updated(holding, before, seconds):
                after, passed = self.matches(holding), self.matches(before)
                if after and passed:
                    return delta if "update" in self.events else None
                if after:
                    return Opened(holding) if "open" in self.events else None
                if passed and "close" in self.events:
                    return Closed(before, "filtered", seconds)
                return None
        return delta


def is_glob(value: str) -> bool:
    """Whether a value stands for many."""
    return bool(_GLOB.search(value))


def _split(name: str, given: Iterable[str]) -> list[str]:
    values = [value.strip() for text in given for value in text.split(",")]
    if not values or not all(values):
        raise FilterError(name, "an empty value matches nothing")
    return values


def _words(name: str, values: Iterable[str], known: Iterable[str]) -> set[str]:
    """Which of the known words the values, which may be globs, choose; in any case."""
    chosen: set[str] = set()
    for value in values:
        lower = value.lower()
        matches = _globs(name, [lower]).match if is_glob(value) else lower.__eq__
        found = {word for word in known if matches(word.lower())}
        if not found:
            raise FilterError(name, f"{value!r} is none of {', '.join(known)}")
        chosen |= found
    return chosen


def _globs(name: str, values: list[str]) -> Globs:
    """Compile globs. Raises FilterError."""
    if any(len(value) > MAX_GLOB_CHARS for value in values):
        raise FilterError(name, f"a pattern is longer than {MAX_GLOB_CHARS} characters")
    return Globs(values)


def _fixed(known: tuple[str, ...], field: Callable[[Holding], str | None]) -> Callable[..., Test]:
    def parse(name: str, values: list[str]) -> Test:
        chosen = _words(name, values, known)
        return lambda holding: field(holding) in chosen

    return parse


def _text(field: Callable[[Holding], str | None], *, prefix: bool = False) -> Callable[..., Test]:
    """A text field: exact, a shell glob, or, with ``prefix``, its beginning."""

    def parse(name: str, values: list[str]) -> Test:
        exact = frozenset(values)
        globs = [value for value in values if is_glob(value)]
        matches = _globs(name, globs).match if globs else None
        beginnings = tuple(value for value in values if not is_glob(value)) if prefix else ()

        @lru_cache(maxsize=512)  # A few hundred names recur for thousands of sockets.
        def chosen(text: str) -> bool:
            return (
                text in exact
                or (bool(beginnings) and text.startswith(beginnings))
                or (matches is not None and matches(text))
            )

        def test(holding: Holding) -> bool:
            text = field(holding)
            return text is not None and chosen(text)

        return test

    return parse


def _lower(parse: Callable[..., Test]) -> Callable[..., Test]:
    """The same for names that the records have in lower case: in any case."""
    return lambda name, values: parse(name, [value.lower() for value in values])


def _number(name: str, value: str, low: int, high: int, what: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 20 and low <= int(value) <= high):
        raise FilterError(name, f"{value!r} is no {what}")
    return int(value)


def _numbers(field: Callable[[Holding], int | None], what: str) -> Callable[..., Test]:
    def parse(name: str, values: list[str]) -> Test:
        chosen = {_number(name, value, 0, 2**63, what) for value in values}
        return lambda holding: field(holding) in chosen

    return parse


def _ports(name: str, values: list[str]) -> Test:
    ranges: list[tuple[int, int]] = []
    for value in values:
        low_text, dash, high_text = value.partition("-")
        try:
            low = _number(name, low_text, 0, _MAX_PORT, "port")
            high = _number(name, high_text, 0, _MAX_PORT, "port") if dash else low
        except FilterError:
            raise FilterError(name, f"{value!r} is no port or range of ports") from None
        if high < low:
            raise FilterError(name, f"{value!r} is an empty range")
        ranges.append((low, high))
    firsts, lasts = _merged(ranges)

    def chosen(port: int | None) -> bool:
        if port is None:
            return False
        at = bisect_right(firsts, port)
        return at > 0 and port <= lasts[at - 1]

    def test(holding: Holding) -> bool:
        socket = holding.socket
        # What raw sockets have there is no port but an IP protocol.
        return (
            socket.family in INET_FAMILIES
            and socket.proto != "raw"
            and (chosen(socket.local_port) or chosen(socket.remote_port))
        )

    return test


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return the first numbers of all ranges, ascending, and the last ones; those that overlap
    become one, so that a number is found by bisection."""
    firsts: list[int] = []
    lasts: list[int] = []
    for low, high in sorted(ranges):
        if lasts and low <= lasts[-1] + 1:
            lasts[-1] = max(lasts[-1], high)
        else:
            firsts.append(low)
            lasts.append(high)
    return firsts, lasts


def _addresses(name: str, values: list[str]) -> Test:
    # Only here: few ask for addresses, and everybody would wait for it.
    from ipaddress import ip_network

    ranges: list[tuple[int, int]] = []
    for value in values:
        try:
            network = ip_network(value.strip("[]"), strict=False)
        except ValueError:
            raise FilterError(name, f"{value!r} is no address and no CIDR") from None
        first = int(network.network_address) + (_IPV4 if network.version == 4 else 0)
        ranges.append((first, first + network.num_addresses - 1))
    firsts, lasts = _merged(ranges)

    def chosen(address: str) -> bool:
        for number in _numbers_of(address):
            at = bisect_right(firsts, number)
            if at and number <= lasts[at - 1]:
                return True
        return False

    def test(holding: Holding) -> bool:
        socket = holding.socket
        if socket.family not in INET_FAMILIES:
            return False
        local, remote = socket.local_addr, socket.remote_addr
        return (local is not None and chosen(local)) or (remote is not None and chosen(remote))

    return test


@lru_cache(maxsize=_MAX_ADDRESSES)
def _numbers_of(address: str) -> tuple[int, ...]:
    """Return an address as a number: two of a v4-mapped one, which IPv4 networks have too; none of
    what is no address."""
    try:
        if ":" not in address:
            return (_IPV4 + int.from_bytes(sockets.inet_pton(sockets.AF_INET, address), "big"),)
        packed = sockets.inet_pton(sockets.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):  # ValueError: a NUL in it, or no ASCII.
        return ()
    number = int.from_bytes(packed, "big")
    if number >> _IPV4_BITS == _IPV4_MAPPED >> _IPV4_BITS:
        return number, number - _IPV4_MAPPED + _IPV4
    return (number,)


def _user(name: str, values: list[str]) -> Test:
    by_name = _text(lambda holding: holding.owner.user if holding.owner else None)(name, values)
    # A longer number is no user id, and none that int() takes.
    ids = {
        int(value) for value in values if value.isascii() and value.isdigit() and len(value) < 20
    }
    return lambda holding: (
        by_name(holding) or (holding.owner is not None and holding.owner.uid in ids)
    )


def _place(holding: Holding) -> Process | CgroupInfo | None:
    return holding.process or holding.place


FILTERS: dict[str, Callable[[str, list[str]], Test]] = {
    "pid": _numbers(lambda holding: holding.process.pid if holding.process else None, "pid"),
    "comm": _text(lambda holding: holding.process.comm if holding.process else None),
    "user": _user,
    "proto": _lower(_text(lambda holding: holding.socket.proto)),
    "family": _lower(_text(lambda holding: holding.socket.family)),
    "state": _fixed(STATES, lambda holding: holding.socket.state),
    "port": _ports,
    "addr": _addresses,
    "unit": _text(lambda holding: place.unit if (place := _place(holding)) else None),
    "container": _text(
        lambda holding: place.container if (place := _place(holding)) else None, prefix=True
    ),
    "netns": _numbers(lambda holding: holding.socket.netns, "network namespace's inode"),
    "direction": _fixed(DIRECTIONS, lambda holding: holding.socket.direction),
    "event": _fixed(EVENTS, lambda _holding: None),
}
