"""The services database, services(5): names of ports, and ports in targets that are typed as names.

The format of a line is ``NAME PORT/PROTOCOL ALIASES # COMMENT``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

PATH = "/etc/services"
_PORT_DIGITS = len("65535")
# A target with a port: what is before the colon, and ports or their names.
_TARGET = re.compile(r"(\*|localhost|[0-9.]+(?:/[0-9]+)?|\[[^]]*\])?:(?!:)([\w.+,:-]+)", re.ASCII)
_NAME = re.compile(r"(?=.*[A-Za-z])[\w.+-]+", re.ASCII)


def read_services(path: str = PATH) -> dict[tuple[str, int], str]:
    """Return the names of ports by protocol and port; none where there is no such file."""
    names: dict[tuple[str, int], str] = {}
    for proto, port, (name, *_aliases) in _services(path):
        names.setdefault((proto, port), name)
    return names


def ports_of(service: str, path: str = PATH) -> list[int]:
    """Return the ports of a service, by its name or an alias, in ascending order: mostly one, of
    all protocols; none if it is not known."""
    return sorted({port for _proto, port, names in _services(path) if service in names})


def with_numbers(
    words: Iterable[str], find: Callable[[str], Sequence[int]] = ports_of
) -> list[str]:
    """Return targets in which names of ports, such as ``:https``, are numbers. Names that are not
    known stay: they are refused as every other text that is no port."""
    return [_with_numbers(word, find) for word in words]


def _with_numbers(word: str, find: Callable[[str], Sequence[int]]) -> str:
    target = _TARGET.fullmatch(word)
    if target is None:
        return word
    before, after = target.groups("")
    given = [text.removeprefix(":") for text in after.split(",")]
    found = {name: find(name) for name in given if _NAME.fullmatch(name)}
    if not any(found.values()):
        return word
    ports = [str(port) for text in given for port in found.get(text) or (text,)]
    if before in ("", "*", "localhost"):
        return f"{before}:{','.join(ports)}"
    return ",".join(f"{before}:{port}" for port in ports)  # Each address has its port.


def _services(path: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the protocol, the port, and the name with its aliases of each service."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.partition("#")[0].split()
                port, _, proto = words[1].partition("/") if len(words) > 1 else ("", "", "")
                if port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS:
                    yield proto, int(port), [words[0], *words[2:]]
    except OSError:
        pass
