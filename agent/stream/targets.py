"""Targets: what a person types, such as ``:8080`` or ``nginx`` → filters. Pure.

Targets of one kind are values of one filter, and so alternatives; different kinds must all match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from ..errors import FilterError, TargetError
from ..model import Holding, Socket
from ..text import nearest
from .filter_ranges import MAX_PORT
from .filter_values import is_glob, is_word, names_of, place
from .filters import FILTERS, STATE_ALIASES, STATES, Filter, is_filter, split_filter

# First words of the command line that are not targets.
COMMANDS = ("events", "help", "page", "top")
_FILTER = re.compile(r"[A-Za-z_-]+\s*!?=")
# The kinds of targets: the filter, and how its values begin or look. The first one that matches
# counts; everything else is a name. IPv6 comes before ports: ``::1`` is an address.
_KINDS = (
    ("path", re.compile(r"[/@].*", re.DOTALL)),
    ("addr", re.compile(r"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%\w+)?(/[0-9]+)?(,.*)?")),
    ("port", re.compile(r"\*?:.*", re.DOTALL)),
    ("endpoint", re.compile(r"(\[[^]]*:[^]]*\]|[0-9]+\.[0-9./]*):.*", re.DOTALL)),
    ("addr", re.compile(r"\[[^]]*:[^]]*\](,.*)?|[0-9]+[./][0-9./]*(,.*)?", re.DOTALL)),
    ("pid", re.compile(r"[0-9]+(,[0-9]+)*")),
    (
        "unit",
        re.compile(
            r".+\.(service|scope|slice|socket|mount|automount|swap|timer|target|path|device)(,.*)?",
            re.DOTALL,
        ),
    ),
)
# The machine itself, with or without ports: both of its addresses.
_LOCALHOST = re.compile(r"localhost(:.*)?", re.DOTALL)
# What is refused, because it would be taken for a name, and what to type instead.
_REFUSED: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(r"\s*"), lambda _word: "empty; expected for example :8080, nginx or 10.0.0.0/8"),
    (
        re.compile(r"(\.\.?|~[^/]*)/.*", re.DOTALL),
        lambda _word: "not a whole path; expected for example /run/app.sock",
    ),
    (
        re.compile(r"[A-Za-z][\w.-]*:[0-9-]+"),
        lambda word: (
            f"not an address; write two targets: {word.replace(':', ' :')}, or for example "
            "10.0.0.7:443"
        ),
    ),
)


def parse_targets(words: Iterable[str]) -> dict[str, list[str]]:
    """Return the values of filters that targets mean. Raises TargetError."""
    values: dict[str, list[str]] = {}
    for word in words:
        name, value = parse_target(word)
        values.setdefault(name, []).append(value)
    return values


def parse_target(word: str) -> tuple[str, str]:
    """Return the name of the filter and the value that a target means. Raises TargetError."""
    name, value = _classify(word)
    try:
        Filter({name: [value]})
    except FilterError as error:
        raise TargetError(word, str(error)) from error
    return name, value


def _classify(word: str) -> tuple[str, str]:
    if localhost := _LOCALHOST.fullmatch(word):
        return _of_localhost(localhost[1])
    for pattern, reason in _REFUSED:
        if pattern.fullmatch(word):
            raise TargetError(word, reason(word))
    if _FILTER.match(word):
        name, value = split_filter(word)
        if not is_filter(name):
            raise TargetError(word, _unknown_filter(name.removesuffix("!")))
        return name, value
    for name, pattern in _KINDS:
        if pattern.fullmatch(word):
            return name, _ports(word) if name == "port" else word
    return "name", word


def _unknown_filter(name: str) -> str:
    near = nearest(name, FILTERS)
    if near is not None:
        return f"there is no filter {name!r}; did you mean {near!r}?"
    return f"there is no filter {name!r}; expected one of {', '.join(FILTERS)}"


def _of_localhost(ports: str | None) -> tuple[str, str]:
    """Return the filter of both addresses of the machine itself, with each of the ports."""
    if ports is None:
        return "addr", "127.0.0.1,::1"
    each = _ports(ports).split(",")
    return "endpoint", ",".join(f"127.0.0.1:{port},[::1]:{port}" for port in each)


def _ports(word: str) -> str:
    """Return the ports of ``:80``, ``*:80`` or ``:80,:443``."""
    return word.removeprefix("*").removeprefix(":").replace(",:", ",")


# Where nothing matched.

# Filters with names, and how a sentence about a name that nothing has begins.
_NOTHING = {
    "name": "no sockets of",
    "comm": "no sockets of a process named",
    "unit": "no sockets of the unit",
}


def hint(chosen: Filter, holdings: Iterable[Holding]) -> str | None:
    """Return a sentence about a pid, a name or an endpoint of a filter that no holding has, with
    what to type instead; None if each of them is there. ``holdings`` are those of the whole
    snapshot."""
    values = dict(chosen.values)
    if not values.keys() & {"pid", "endpoint", *_NOTHING}:
        return None
    return next(_hints(values, list(holdings)), None)


def _hints(values: dict[str, frozenset[str]], holdings: list[Holding]) -> Iterator[str]:
    pids = {one.process.pid for one in holdings if one.process}
    for pid in sorted({int(value) for value in values.get("pid", ())} - pids):
        yield _no_process(pid, holdings)
    for name in values.keys() & _NOTHING.keys():
        for value in sorted(values[name]):
            if not any(map(Filter({name: [value]}).matches, holdings)):
                yield _no_name(name, value, holdings)
    endpoints = values.get("endpoint")
    if endpoints and not any(map(Filter({"endpoint": endpoints}).matches, holdings)):
        yield from _no_endpoint(endpoints, holdings)


def _no_process(pid: int, holdings: list[Holding]) -> str:
    sentence = f"no sockets of process {pid}"
    if pid > MAX_PORT:
        return sentence
    count = _count(str(pid), holdings)
    return f"{sentence}; port {pid} has {count}: sockagent :{pid}" if count else sentence


def _no_endpoint(endpoints: Iterable[str], holdings: list[Holding]) -> Iterator[str]:
    """Yield a sentence if a port is used with other addresses: a listener on all of them is one."""
    for port in sorted({value.rpartition(":")[2] for value in endpoints}):
        if count := _count(port, holdings):
            yield f"no sockets with this address; port {port} has {count}: sockagent :{port}"


def _count(port: str, holdings: list[Holding]) -> int:
    """Return the number of sockets with a port; that of several processes counts once."""
    return len(set(map(_socket, filter(Filter({"port": [port]}).matches, holdings))))


def _socket(holding: Holding) -> Socket:
    return holding.socket


def _known_names(name: str, holdings: list[Holding]) -> set[str]:
    if name == "name":
        return set().union(*map(names_of, holdings))
    if name == "comm":
        return {one.process.comm for one in holdings if one.process}
    return {group.unit for one in holdings if (group := place(one)) and group.unit}


def _no_name(name: str, value: str, holdings: list[Holding]) -> str:
    """Return a sentence about a name that nothing has."""
    from shlex import quote

    sentence = f"{_NOTHING[name]} {value!r}"
    if is_glob(value):
        return sentence
    if name == "name" and (other := _other_filter(value, holdings)) is not None:
        filter_name, what = other
        return f"{sentence}; it is a {what}: sockagent {filter_name}={quote(value)}"
    near = nearest(value, _known_names(name, holdings))
    if near is None:
        return sentence
    target = near if name == "name" and _is_name(near) else f"{name}={near}"
    return f"{sentence}; did you mean {near!r}? sockagent {quote(target)}"


def _is_name(word: str) -> bool:
    """Return whether a word, as a target, means a name."""
    if word in COMMANDS or word.startswith("-"):
        return False
    try:
        return parse_target(word)[0] == "name"
    except TargetError:
        return False


def _other_filter(value: str, holdings: list[Holding]) -> tuple[str, str] | None:
    """Return the filter that has a value which is no name, and what the value is."""
    if any(is_word(value, state) for state in (*STATES, *STATE_ALIASES)):
        return "state", "state"
    if any(one.socket.proto == value.lower() for one in holdings):
        return "proto", "protocol"
    if any(one.owner is not None and one.owner.user == value for one in holdings):
        return "user", "user"
    return None
