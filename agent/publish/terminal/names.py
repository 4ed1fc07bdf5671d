"""Names of addresses: reverse DNS that is never waited for."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ...model import INET_FAMILIES, Holding
from .endpoints import ANY_ADDRESSES

# A name server that does not answer holds a thread for some seconds.
MAX_THREADS = 8
# Addresses that are resolved in one run, about 200 bytes each: a stream may name millions.
MAX_ADDRESSES = 20_000


def host_name(address: str) -> str | None:
    """Return the name of an address by reverse DNS, None if it has none. It may block."""
    try:
        return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]
    except (OSError, UnicodeError):
        return None


def addresses_of(holding: Holding) -> list[str]:
    """Return the addresses of a holding that may have names."""
    socket = holding.socket
    if socket.family not in INET_FAMILIES:
        return []
    return [one for one in (socket.local_addr, socket.remote_addr) if one is not None]


class Resolver:
    """Resolves addresses in threads. ``names`` are the names by address, as far as known by now."""

    def __init__(self, lookup: Callable[[str], str | None] = host_name) -> None:
        self.names: dict[str, str] = {}
        self._lookup = lookup
        self._pool = ThreadPoolExecutor(MAX_THREADS, "resolve")
        self._requests: dict[str, Future[None]] = {}

    def request(self, holdings: Iterable[Holding]) -> None:
        """Begin to resolve the addresses of these holdings, each address once."""
        for holding in holdings:
            self.request_addresses(addresses_of(holding))

    def request_addresses(self, addresses: Iterable[str]) -> None:
        """Begin to resolve these addresses, each once."""
        for address in addresses:
            if address in ANY_ADDRESSES or address in self._requests:
                continue
            if len(self._requests) < MAX_ADDRESSES:
                self._requests[address] = self._pool.submit(self._resolve, address)

    def _resolve(self, address: str) -> None:
        name = self._lookup(address)
        if name is not None:
            self.names[address] = name

    def wait(self, seconds: float) -> None:
        """Wait until everything is resolved, at most for a time."""
        wait(self._requests.values(), seconds)

    def close(self) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
