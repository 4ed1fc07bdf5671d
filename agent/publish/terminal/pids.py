"""The processes that hold the sockets, as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...model import HostHolding
from .endpoints import listens


def pids(holdings: Iterable[HostHolding], *, listening_only: bool = False) -> Iterator[str]:
    """Yield the pids of the holders, each once and ascending. ``listening_only``: of sockets that
    listen, and of UDP sockets without a peer."""
    found = {
        one.holding.process.pid
        for one in holdings
        if one.holding.process is not None and (not listening_only or listens(one.holding.socket))
    }
    yield from map(str, sorted(found))
