"""The group of a holding, and what the group is called. Pure."""

from __future__ import annotations

from collections.abc import Callable

from ...model import INET_FAMILIES, Holding
from ..terminal.cells import place_of, user_name
from ..terminal.endpoints import listens
from .model import Grouping, GroupKey


def _process(host: str, holding: Holding) -> GroupKey:
    process = holding.process
    if process is None:
        return GroupKey(Grouping.PROCESS, host)
    return GroupKey(Grouping.PROCESS, host, None, process.pid, process.start_ticks)


def _unit(host: str, holding: Holding) -> GroupKey:
    return GroupKey(Grouping.UNIT, host, place_of(holding, "unit"))


def _container(host: str, holding: Holding) -> GroupKey:
    return GroupKey(Grouping.CONTAINER, host, place_of(holding, "container"))


def _user(host: str, holding: Holding) -> GroupKey:
    return GroupKey(Grouping.USER, host, user_name(holding))


def _service(host: str, holding: Holding) -> GroupKey:
    """Return the group of the port that is called: of the other end, if the call came from here."""
    socket = holding.socket
    if socket.family not in INET_FAMILIES:
        return GroupKey(Grouping.SERVICE, host, socket.proto or socket.family)
    called_here = socket.direction == "inbound" or socket.remote_port is None or listens(socket)
    port = socket.local_port if called_here else socket.remote_port
    return GroupKey(Grouping.SERVICE, host, socket.proto, port or None)


def _remote(host: str, holding: Holding) -> GroupKey:
    return GroupKey(Grouping.REMOTE, host, holding.socket.remote_addr)


def _namespace(host: str, holding: Holding) -> GroupKey:
    return GroupKey(Grouping.NAMESPACE, host, None, holding.socket.netns)


def _host(host: str, _holding: Holding) -> GroupKey:
    return GroupKey(Grouping.HOST, host)


# Return the key of the group that a holding of a host belongs to.
KEYS: dict[Grouping, Callable[[str, Holding], GroupKey]] = {
    Grouping.PROCESS: _process,
    Grouping.UNIT: _unit,
    Grouping.CONTAINER: _container,
    Grouping.USER: _user,
    Grouping.SERVICE: _service,
    Grouping.REMOTE: _remote,
    Grouping.NAMESPACE: _namespace,
    Grouping.HOST: _host,
}


def title_of(key: GroupKey, holding: Holding) -> str | None:
    """Return what a group is called, of which a holding is known; None if that is unknown."""
    match key.grouping:
        case Grouping.PROCESS:
            return None if holding.process is None else holding.process.comm
        case Grouping.SERVICE:
            return key.name if key.number is None else f"{key.name or '?'}:{key.number}"
        case Grouping.NAMESPACE:
            return None if key.number is None else str(key.number)
        case Grouping.HOST:
            return key.host
    return key.name
