"""The values of filters: text → predicates of holdings, one function for each kind of field.
``filter_ranges`` has those of ports and addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache

from ..errors import FilterError
from ..model import CgroupInfo, Holding, Process, Socket
from .globs import Globs

Predicate = Callable[[Holding], bool]
# Compiles the values of the filter of this name. Raises FilterError.
Compiler = Callable[[str, list[str]], Predicate]

# Ends the name of a filter that excludes: ``comm!=nginx`` is the filter ``comm!``.
EXCLUDES = "!"
# What ``direction`` takes besides the directions: datagram sockets that wait for anyone.
BOUND = "bound"
_BOUND_PROTOS = frozenset({"udp", "udplite"})
# Fewer characters of a container's id are words, too: ed, cafe.
_MIN_ID_CHARS = 6
_DELETED = " (deleted)"  # The kernel's mark of a program that was replaced.
_MAX_UID = 2**32 - 1
_MAX_DIGITS = 20  # Longer numbers are none of these, and int() limits their length.
_GLOB = re.compile(r"[*?\[]")
# More than any name has that a glob is compared with.
MAX_GLOB_CHARS = 256


def is_glob(value: str) -> bool:
    """Return whether a value is a shell glob."""
    return bool(_GLOB.search(value))


def split(name: str, given: Iterable[str]) -> list[str]:
    """Split values at commas. Raises FilterError where one is empty."""
    values = [value.strip() for text in given for value in text.split(",")]
    if not values or not all(values):
        raise FilterError(name, "empty value" + example(name))
    return values


def words(
    name: str,
    values: Iterable[str],
    known: Collection[str],
    aliases: Mapping[str, Iterable[str]] | None = None,
) -> set[str]:
    """Return the known words that the values mean, in any letter case, with or without hyphens and
    underscores. Values may be globs or ``aliases``. Raises FilterError."""
    meanings = {_fold(word): {word} for word in known}
    meanings |= {alias: set(chosen) for alias, chosen in (aliases or {}).items()}
    chosen: set[str] = set()
    for value in values:
        if is_glob(value):
            matches = _globs(name, [value.lower()]).match
            found = {word for word in known if matches(word.lower())}
        else:  # A known word means itself, whatever an alias in lower case means: CONNECTED.
            found = {value} if value in known else meanings.get(_fold(value), set())
        if not found:
            listed = ", ".join((*known, *(aliases or ())))
            raise FilterError(name, f"{value!r} is not one of {listed}")
        chosen |= found
    return chosen


def is_word(value: str, word: str) -> bool:
    """Return whether a value of a filter means a word: see ``words``."""
    return _fold(value) == _fold(word)


def _fold(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")


def _globs(name: str, values: list[str]) -> Globs:
    """Compile globs. Raises FilterError."""
    if any(len(value) > MAX_GLOB_CHARS for value in values):
        raise FilterError(name, f"a pattern has more than {MAX_GLOB_CHARS} characters")
    return Globs(values)


def word(
    known: tuple[str, ...],
    field: Callable[[Holding], str | None],
    aliases: Mapping[str, Iterable[str]] | None = None,
) -> Compiler:
    """Return the compiler of a field with known values; ``aliases`` are other names of them."""

    def compile_values(name: str, values: list[str]) -> Predicate:
        chosen = words(name, values, known, aliases)
        return lambda holding: field(holding) in chosen

    return compile_values


def direction(known: tuple[str, ...]) -> Compiler:
    """Return the compiler of the direction, one of ``known``, or ``bound``: UDP without a peer."""

    def compile_values(name: str, values: list[str]) -> Predicate:
        chosen = words(name, values, known, {BOUND: (BOUND,)})
        if BOUND not in chosen:
            return lambda holding: holding.socket.direction in chosen
        return lambda holding: holding.socket.direction in chosen or is_bound(holding.socket)

    return compile_values


def is_bound(socket: Socket) -> bool:
    """Return whether it is a UDP socket that has a port and no peer."""
    return (
        socket.proto in _BOUND_PROTOS and socket.state == "UNCONNECTED" and bool(socket.local_port)
    )


def host(name: str, values: list[str]) -> Callable[[str], bool]:
    """Compile names of hosts."""
    matches = _any_of(name, values)
    if name.endswith(EXCLUDES):
        return lambda host: not matches(host)
    return matches


def text(field: Callable[[Holding], str | None], *, prefix: bool = False) -> Compiler:
    """Return the compiler of a text field: values are exact, globs, or with ``prefix`` prefixes."""

    def compile_values(name: str, values: list[str]) -> Predicate:
        exact_or_glob = _any_of(name, values)
        prefixes = tuple(value for value in values if not is_glob(value)) if prefix else ()

        @lru_cache(maxsize=512)  # A few hundred names recur for thousands of sockets.
        def chosen(text: str) -> bool:
            return exact_or_glob(text) or (bool(prefixes) and text.startswith(prefixes))

        def matches_text(holding: Holding) -> bool:
            text = field(holding)
            return text is not None and chosen(text)

        return matches_text

    return compile_values


def _any_of(name: str, values: list[str]) -> Callable[[str], bool]:
    """Return a function that returns whether a text is one of the values or matches a glob."""
    exact = frozenset(values)
    globs = [value for value in values if is_glob(value)]
    if not globs:
        return exact.__contains__
    matches = _globs(name, globs).match
    return lambda text: text in exact or matches(text)


def lower(compiler: Compiler) -> Compiler:
    """Return a compiler that takes values in any letter case, for fields in lower case."""
    return lambda name, values: compiler(name, [value.lower() for value in values])


def number_of(value: str, high: int) -> int | None:
    """Return a number from 0 to ``high``; None where the value is none."""
    digits = value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS
    return int(value) if digits and int(value) <= high else None


def numbers(field: Callable[[Holding], int | None], what: str) -> Compiler:
    """Return the compiler of a field with numbers; ``what`` is what a number is."""

    def compile_values(name: str, values: list[str]) -> Predicate:
        chosen = {number_of(value, 2**63): value for value in values}
        if None in chosen:
            raise FilterError(name, f"{chosen[None]!r} is not {what}" + example(name))
        return lambda holding: field(holding) in chosen

    return compile_values


def user(name: str, values: list[str]) -> Predicate:
    """Compile names and ids of users."""
    by_name = text(lambda holding: holding.owner.user if holding.owner else None)(name, values)
    ids = {number_of(value, _MAX_UID) for value in values} - {None}
    return lambda holding: (
        by_name(holding) or (holding.owner is not None and holding.owner.uid in ids)
    )


def place(holding: Holding) -> Process | CgroupInfo | None:
    """Return what names the unit and the container of a holding."""
    return holding.process or holding.cgroup


def names(name: str, values: list[str]) -> Predicate:
    """Compile the names that a person has for a process: see ``names_of``, and containers' ids."""
    matches_name = _any_of(name, values)
    prefixes = tuple(one for one in values if len(one) >= _MIN_ID_CHARS and not is_glob(one))

    @lru_cache(maxsize=512)  # A few hundred processes and units have thousands of sockets.
    def chosen(comm: str | None, exe: str | None, unit: str | None, container: str | None) -> bool:
        if container is not None and (matches_name(container) or container.startswith(prefixes)):
            return True
        return any(map(matches_name, _names(comm, exe, unit)))

    def matches_names(holding: Holding) -> bool:
        process = holding.process
        if process is not None:
            return chosen(process.comm, process.exe, process.unit, process.container)
        group = holding.cgroup
        return group is not None and chosen(None, None, group.unit, group.container)

    return matches_names


def names_of(holding: Holding) -> set[str]:
    """Return the name of the process, the file name of its program, and the name of its unit with
    and without the suffix, as far as they are known."""
    group, process = place(holding), holding.process
    unit = group and group.unit
    return _names(process.comm, process.exe, unit) if process else _names(None, None, unit)


def _names(comm: str | None, exe: str | None, unit: str | None) -> set[str]:
    program = exe and exe.removesuffix(_DELETED).rpartition("/")[2]
    return {text for text in (comm, program, unit, unit and unit.rpartition(".")[0]) if text}


_EXAMPLES = {
    "pid": "1234", "name": "nginx or web.service", "comm": "nginx*", "user": "www-data or 33",
    "proto": "tcp", "family": "inet6", "state": "LISTEN", "port": "443 or 8000-8100",
    "addr": "192.0.2.1 or 10.0.0.0/8", "endpoint": "192.0.2.1:443 or [2001:db8::1]:443",
    "path": "/run/app.sock or @name", "unit": "nginx.service", "container": "3f4a9c07d2b1",
    "netns": "4026531840", "direction": "inbound", "scope": "external",
    "host": "web1 or web*", "event": "open,close",
}  # fmt: skip


def example(name: str) -> str:
    """Return the end of a message about a value of this filter."""
    return f"; expected for example {_EXAMPLES[name.removesuffix(EXCLUDES)]}"
