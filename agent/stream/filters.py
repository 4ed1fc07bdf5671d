"""The filter language: the same names and values on the command line, in query strings and in the
filter file.

Values of one filter, comma-separated or repeated, are OR-ed; different filters are AND-ed. A name
that ends in ``!`` excludes what the filter without it selects: ``comm!=nginx``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from ..errors import FilterError
from ..model import (
    DATAGRAM_STATES,
    TCP_STATES,
    UNIX_STATES,
    Closed,
    Delta,
    Holding,
    Opened,
    Updated,
)
from .filter_ranges import addresses, endpoints, ports, scope
from .filter_values import (
    EXCLUDES,
    Compiler,
    Predicate,
    direction,
    host,
    lower,
    names,
    numbers,
    place,
    split,
    text,
    user,
    word,
    words,
)

STATES = tuple(dict.fromkeys((*TCP_STATES, *DATAGRAM_STATES, *UNIX_STATES)))
# Other words for states, those of ss(8) among them.
STATE_ALIASES = {
    "listening": ("LISTEN",),
    "estab": ("ESTABLISHED",),
    "connected": ("ESTABLISHED", "CONNECTED"),
    "unconn": ("UNCONNECTED",),
}
DIRECTIONS = ("inbound", "outbound", "listen")
# The socket records; other records pass every filter.
EVENTS = ("snapshot", "open", "update", "close")


class Filter:
    """The holdings, and the kinds of socket records, that a subscriber wants. Filters of the same
    values are equal, so that subscribers can share what is encoded.

    A holding does not have its host: ``of_host`` returns the filter for the holdings of one host.
    """

    __slots__ = ("_hosts", "_predicates", "events", "values")

    def __init__(self, values: Mapping[str, Iterable[str]] | None = None) -> None:
        """``values`` maps names to values, which may be comma-separated. Raises FilterError."""
        values = values or {}
        unknown = [name for name in values if not is_filter(name)]
        if unknown:
            raise FilterError(min(unknown), f"unknown filter; expected one of {', '.join(FILTERS)}")
        given = {name: split(name, texts) for name, texts in values.items()}
        self.values = frozenset((name, frozenset(texts)) for name, texts in given.items())
        self._predicates: tuple[Predicate, ...] = tuple(
            _compile(name, texts)
            for name, texts in given.items()
            if _base(name) not in ("event", "host")
        )
        self._hosts = tuple(
            host(name, texts) for name, texts in given.items() if _base(name) == "host"
        )
        events = words("event", given["event"], EVENTS) if "event" in given else set(EVENTS)
        if "event!" in given:
            events -= words("event!", given["event!"], EVENTS)
        self.events = frozenset(events)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)

    def __and__(self, other: Filter) -> Filter:
        """Return a filter that lets through what both do."""
        both = Filter()
        both.values = self.values | other.values
        both._predicates = self._predicates + other._predicates
        both._hosts = self._hosts + other._hosts
        both.events = self.events & other.events
        return both

    @property
    def passes_all(self) -> bool:
        """Return whether every holding of every host matches."""
        return not self._predicates and not self._hosts

    def matches_host(self, host: str) -> bool:
        """Return whether the subscriber wants holdings of a host."""
        return all(matches(host) for matches in self._hosts)

    def of_host(self, host: str) -> Filter:
        """Return the filter for the holdings of a host: without names of hosts, or one that hides
        all of them."""
        return _of_host(self, host) if self._hosts else self

    def _of_host(self, host: str) -> Filter:
        chosen = Filter()
        chosen.values, chosen.events = self.values, self.events
        chosen._predicates = self._predicates if self.matches_host(host) else (_hide,)
        return chosen

    def without(self, *names: str) -> Filter:
        """Return the filter without these filters and their exclusions."""
        return Filter({name: texts for name, texts in self.values if _base(name) not in names})

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


def split_filter(text: str) -> tuple[str, str]:
    """Return the name and the values of ``name=values`` or ``name!=values``. The name ends in ``!``
    if the filter excludes; it is not checked."""
    name, _, values = text.partition("=")
    name = name.strip()
    if name.endswith(EXCLUDES):
        name = name.removesuffix(EXCLUDES).rstrip() + EXCLUDES
    return name, values


def is_filter(name: str) -> bool:
    """Return whether there is a filter of this name, which may end in ``!``."""
    return _base(name) in FILTERS


# Every record of a stream asks for the filter of its host.
_of_host = lru_cache(maxsize=512)(Filter._of_host)  # noqa: SLF001 (of this module)


def _hide(_holding: Holding) -> bool:
    return False


def _base(name: str) -> str:
    return name.removesuffix(EXCLUDES)


def _compile(name: str, values: list[str]) -> Predicate:
    predicate = FILTERS[_base(name)](name, values)
    if _base(name) == name:
        return predicate
    return lambda holding: not predicate(holding)


FILTERS: dict[str, Compiler] = {
    "pid": numbers(lambda holding: holding.process.pid if holding.process else None, "a pid"),
    "name": names,
    "comm": text(lambda holding: holding.process.comm if holding.process else None),
    "user": user,
    "proto": lower(text(lambda holding: holding.socket.proto)),
    "family": lower(text(lambda holding: holding.socket.family)),
    "state": word(STATES, lambda holding: holding.socket.state, STATE_ALIASES),
    "port": ports,
    "addr": addresses,
    "endpoint": endpoints,
    "path": text(lambda holding: holding.socket.path),
    "unit": text(lambda holding: group.unit if (group := place(holding)) else None),
    "container": text(
        lambda holding: group.container if (group := place(holding)) else None, prefix=True
    ),
    "netns": numbers(lambda holding: holding.socket.netns, "the inode of a network namespace"),
    "direction": direction(DIRECTIONS),
    "scope": scope,
    # These two are not compared with a holding: see Filter.
    "host": text(lambda _holding: None),
    "event": word(EVENTS, lambda _holding: None),
}
