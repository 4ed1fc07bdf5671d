"""The filter language: the same names and values on the command line and in query strings.

Values of one filter, comma-separated or repeated, are OR-ed; different filters are AND-ed.
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

Predicate = Callable[[Holding], bool]
# Compiles the values of the filter of this name. Raises FilterError.
Compiler = Callable[[str, list[str]], Predicate]

STATES = tuple(dict.fromkeys((*TCP_STATES, *DATAGRAM_STATES, *UNIX_STATES)))
DIRECTIONS = ("inbound", "outbound", "listen")
# The socket records; other records pass every filter.
EVENTS = ("snapshot", "open", "update", "close")
_MAX_PORT = 65_535
_MAX_UID = 2**32 - 1
_MAX_DIGITS = 20  # Longer numbers are none of these, and int() limits their length.
_GLOB = re.compile(r"[*?\[]")
# More than any name has that a glob is compared with.
MAX_GLOB_CHARS = 256
# Addresses as numbers: IPv6 from 0 on, IPv4 after all of IPv6.
_IPV4 = 1 << 128
_IPV4_BITS = 32
_IPV4_MAPPED = 0xFFFF << _IPV4_BITS  # ::ffff:0:0/96
# Addresses whose numbers are cached for all filters, 200 bytes each.
_MAX_ADDRESSES = 8192


class Filter:
    """The holdings, and the kinds of socket records, that a subscriber wants. Filters of the same
    values are equal, so that subscribers can share what is encoded."""

    __slots__ = ("_predicates", "events", "values")

    def __init__(self, values: Mapping[str, Iterable[str]] | None = None) -> None:
        """``values`` maps names to values, which may be comma-separated. Raises FilterError."""
        split = {name: _split(name, given) for name, given in (values or {}).items()}
        unknown = split.keys() - FILTERS.keys()
        if unknown:
            name = min(unknown)
            raise FilterError(name, f"unknown filter; expected one of {', '.join(FILTERS)}")
        self.values = frozenset((name, frozenset(given)) for name, given in split.items())
        self._predicates: tuple[Predicate, ...] = tuple(
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
        """Return a filter that lets through what both do."""
        both = Filter()
        both.values = self.values | other.values
        both._predicates = self._predicates + other._predicates
        both.events = self.events & other.events
        return both

    @property
    def passes_all(self) -> bool:
        """Return whether every holding matches."""
        return not self._predicates

    def matches(self, holding: Holding) -> bool:
        """Return whether the subscriber wants a holding."""
        for matches in self._predicates:  # noqa: SIM110 (a generator for all() takes 0.3 µs more)
            if not matches(holding):
                return False
        return True

    def apply(self, delta: Delta) -> Delta | None:
        """Return a delta as the subscriber gets it; None where it is hidden.

        A holding that an update brings into the filter opens, and one that it takes out closes for
        the reason ``filtered``, so that folding the deltas gives the right state.
        """
        match delta:
            case Opened(holding):
                return delta if "open" in self.events and self.matches(holding) else None
            case Closed(holding):
                return delta if "close" in self.events and self.matches(holding) else None
            case Updated(holding, before, seconds, time):
                after, passed = self.matches(holding), self.matches(before)
                if after and passed:
                    return delta if "update" in self.events else None
                if after:
                    return Opened(holding, time) if "open" in self.events else None
                if passed and "close" in self.events:
                    return Closed(before, "filtered", seconds, time)
                return None
        return delta


def is_glob(value: str) -> bool:
    """Return whether a value is a shell glob."""
    return bool(_GLOB.search(value))


def _split(name: str, given: Iterable[str]) -> list[str]:
    values = [value.strip() for text in given for value in text.split(",")]
    if not values or not all(values):
        raise FilterError(name, "empty value" + _example(name))
    return values


def _words(name: str, values: Iterable[str], known: Iterable[str]) -> set[str]:
    """Return the known words that match the values, which may be globs, in any letter case."""
    chosen: set[str] = set()
    for value in values:
        lower = value.lower()
        matches = _globs(name, [lower]).match if is_glob(value) else lower.__eq__
        found = {word for word in known if matches(word.lower())}
        if not found:
            raise FilterError(name, f"{value!r} is not one of {', '.join(known)}")
        chosen |= found
    return chosen


def _globs(name: str, values: list[str]) -> Globs:
    """Compile globs. Raises FilterError."""
    if any(len(value) > MAX_GLOB_CHARS for value in values):
        raise FilterError(name, f"a pattern has more than {MAX_GLOB_CHARS} characters")
    return Globs(values)


def _word(known: tuple[str, ...], field: Callable[[Holding], str | None]) -> Compiler:
    """Return the compiler of a field with known values."""

    def compile_values(name: str, values: list[str]) -> Predicate:
        chosen = _words(name, values, known)
        return lambda holding: field(holding) in chosen

    return compile_values


def _text(field: Callable[[Holding], str | None], *, prefix: bool = False) -> Compiler:
    """Return the compiler of a text field: values are exact, globs, or with ``prefix`` prefixes."""

    def compile_values(name: str, values: list[str]) -> Predicate:
        exact = frozenset(values)
        globs = [value for value in values if is_glob(value)]
        matches = _globs(name, globs).match if globs else None
        prefixes = tuple(value for value in values if not is_glob(value)) if prefix else ()

        @lru_cache(maxsize=512)  # A few hundred names recur for thousands of sockets.
        def chosen(text: str) -> bool:
            return (
                text in exact
                or (bool(prefixes) and text.startswith(prefixes))
                or (matches is not None and matches(text))
            )

        def matches_text(holding: Holding) -> bool:
            text = field(holding)
            return text is not None and chosen(text)

        return matches_text

    return compile_values


def _lower(compiler: Compiler) -> Compiler:
    """Return a compiler that takes values in any letter case, for fields in lower case."""
    return lambda name, values: compiler(name, [value.lower() for value in values])


def _number(value: str, high: int) -> int | None:
    """Return a number from 0 to ``high``; None where the value is none."""
    digits = value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS
    return int(value) if digits and int(value) <= high else None


def _numbers(field: Callable[[Holding], int | None], what: str) -> Compiler:
    """Return the compiler of a field with numbers; ``what`` is what a number is."""

    def compile_values(name: str, values: list[str]) -> Predicate:
        chosen = {_number(value, 2**63): value for value in values}
        if None in chosen:
            raise FilterError(name, f"{chosen[None]!r} is not {what}" + _example(name))
        return lambda holding: field(holding) in chosen

    return compile_values


def _ports(name: str, values: list[str]) -> Predicate:
    ranges: list[tuple[int, int]] = []
    for value in values:
        first, dash, last = value.partition("-")
        low = _number(first, _MAX_PORT)
        high = _number(last, _MAX_PORT) if dash else low
        if low is None or high is None or high < low:
            raise FilterError(name, f"{value!r} is not a port or range of ports" + _example(name))
        ranges.append((low, high))
    chosen = _in_ranges(ranges)

    def matches_port(holding: Holding) -> bool:
        socket = holding.socket
        # The port of a raw socket is an IP protocol.
        return (
            socket.family in INET_FAMILIES
            and socket.proto != "raw"
            and chosen((socket.local_port, socket.remote_port))
        )

    return matches_port


def _in_ranges(ranges: Iterable[tuple[int, int]]) -> Callable[[Iterable[int | None]], bool]:
    """Return a function that returns whether any of several numbers is in one of the ranges."""
    firsts: list[int] = []
    lasts: list[int] = []
    for low, high in sorted(ranges):
        if lasts and low <= lasts[-1] + 1:
            lasts[-1] = max(lasts[-1], high)
        else:
            firsts.append(low)
            lasts.append(high)

    def contains(numbers: Iterable[int | None]) -> bool:
        for number in numbers:
            if number is not None:
                at = bisect_right(firsts, number)
                if at and number <= lasts[at - 1]:
                    return True
        return False

    return contains


def _addresses(name: str, values: list[str]) -> Predicate:
    # Imported only here: few filters have addresses, and it takes milliseconds.
    from ipaddress import ip_network

    ranges: list[tuple[int, int]] = []
    for value in values:
        try:
            network = ip_network(value.strip("[]"), strict=False)
        except ValueError:
            what = f"{value!r} is not an address or CIDR"
            raise FilterError(name, what + _example(name)) from None
        first = int(network.network_address) + (_IPV4 if network.version == 4 else 0)
        ranges.append((first, first + network.num_addresses - 1))
    chosen = _in_ranges(ranges)

    def matches_address(holding: Holding) -> bool:
        socket = holding.socket
        if socket.family not in INET_FAMILIES:
            return False
        local, remote = socket.local_addr, socket.remote_addr
        return (local is not None and chosen(_numbers_of(local))) or (
            remote is not None and chosen(_numbers_of(remote))
        )

    return matches_address


@lru_cache(maxsize=_MAX_ADDRESSES)
def _numbers_of(address: str) -> tuple[int, ...]:
    """Return the number of an address; two for a v4-mapped one, which IPv4 networks contain too;
    none for other text."""
    try:
        if ":" not in address:
            return (_IPV4 + int.from_bytes(sockets.inet_pton(sockets.AF_INET, address), "big"),)
        packed = sockets.inet_pton(sockets.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):  # ValueError: a NUL, or not ASCII.
        return ()
    number = int.from_bytes(packed, "big")
    if number >> _IPV4_BITS == _IPV4_MAPPED >> _IPV4_BITS:
        return number, number - _IPV4_MAPPED + _IPV4
    return (number,)


def _user(name: str, values: list[str]) -> Predicate:
    by_name = _text(lambda holding: holding.owner.user if holding.owner else None)(name, values)
    ids = {_number(value, _MAX_UID) for value in values} - {None}
    return lambda holding: (
        by_name(holding) or (holding.owner is not None and holding.owner.uid in ids)
    )


def _place(holding: Holding) -> Process | CgroupInfo | None:
    return holding.process or holding.cgroup


FILTERS: dict[str, Compiler] = {
    "pid": _numbers(lambda holding: holding.process.pid if holding.process else None, "a pid"),
    "comm": _text(lambda holding: holding.process.comm if holding.process else None),
    "user": _user,
    "proto": _lower(_text(lambda holding: holding.socket.proto)),
    "family": _lower(_text(lambda holding: holding.socket.family)),
    "state": _word(STATES, lambda holding: holding.socket.state),
    "port": _ports,
    "addr": _addresses,
    "unit": _text(lambda holding: place.unit if (place := _place(holding)) else None),
    "container": _text(
        lambda holding: place.container if (place := _place(holding)) else None, prefix=True
    ),
    "netns": _numbers(lambda holding: holding.socket.netns, "the inode of a network namespace"),
    "direction": _word(DIRECTIONS, lambda holding: holding.socket.direction),
    "event": _word(EVENTS, lambda _holding: None),
}

_EXAMPLES = {
    "pid": "1234", "comm": "nginx*", "user": "www-data or 33", "proto": "tcp", "family": "inet6",
    "state": "LISTEN", "port": "443 or 8000-8100", "addr": "192.0.2.1 or 10.0.0.0/8",
    "unit": "nginx.service", "container": "3f4a9c07d2b1", "netns": "4026531840",
    "direction": "inbound", "event": "open,close",
}  # fmt: skip


def _example(name: str) -> str:
    return f"; expected for example {_EXAMPLES[name]}"
