"""The values of filters that are ranges of numbers: ports, addresses, and both together."""

from __future__ import annotations

import socket as sockets
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import lru_cache

from ..errors import FilterError
from ..model import INET_FAMILIES, Holding
from .filter_values import Predicate, example, number_of, words

# Whether a socket reaches other machines.
SCOPES = ("external", "local")
_LOOPBACK = ("127.0.0.0/8", "::1")
MAX_PORT = 65_535
# Addresses as numbers: IPv6 from 0 on, IPv4 after all of IPv6.
_IPV4 = 1 << 128
_IPV4_BITS = 32
_IPV4_MAPPED = 0xFFFF << _IPV4_BITS  # ::ffff:0:0/96
# Addresses whose numbers are cached for all filters, 200 bytes each.
_MAX_ADDRESSES = 8192


def ports(name: str, values: list[str]) -> Predicate:
    """Compile ports and ranges of ports at either end."""
    chosen = _in_ranges(_port_range(name, value) for value in values)

    def matches_port(holding: Holding) -> bool:
        socket = holding.socket
        # The port of a raw socket is an IP protocol.
        return (
            socket.family in INET_FAMILIES
            and socket.proto != "raw"
            and chosen((socket.local_port, socket.remote_port))
        )

    return matches_port


def _port_range(name: str, value: str) -> tuple[int, int]:
    """Return the first and the last port. Raises FilterError."""
    first, dash, last = value.partition("-")
    low = number_of(first, MAX_PORT)
    high = number_of(last, MAX_PORT) if dash else low
    if low is None or high is None or high < low:
        raise FilterError(name, f"{value!r} is not a port or range of ports" + example(name))
    return low, high


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


def addresses(name: str, values: list[str]) -> Predicate:
    """Compile addresses and networks at either end."""
    chosen = _in_ranges(_address_range(name, value) for value in values)

    def matches_address(holding: Holding) -> bool:
        socket = holding.socket
        if socket.family not in INET_FAMILIES:
            return False
        local, remote = socket.local_addr, socket.remote_addr
        return (local is not None and chosen(_numbers_of(local))) or (
            remote is not None and chosen(_numbers_of(remote))
        )

    return matches_address


def _address_range(name: str, value: str) -> tuple[int, int]:
    """Return the numbers of the first and the last address of a network. Raises FilterError."""
    # Imported only here: few filters have addresses, and it takes milliseconds.
    from ipaddress import ip_network

    try:
        network = ip_network(value.strip("[]"), strict=False)
    except ValueError:
        what = f"{value!r} is not an address or CIDR"
        raise FilterError(name, what + example(name)) from None
    first = int(network.network_address) + (_IPV4 if network.version == 4 else 0)
    return first, first + network.num_addresses - 1


def endpoints(name: str, values: list[str]) -> Predicate:
    """Compile an address or network with a port or range of ports, both of the same end."""
    ranges: list[tuple[int, int, int, int]] = []
    for value in values:
        address, colon, port = value.rpartition(":")
        is_bracketed = address.startswith("[") and address.endswith("]")
        if not colon or (":" in address and not is_bracketed):
            raise FilterError(name, f"{value!r} is not an address with a port" + example(name))
        ranges.append((*_port_range(name, port), *_address_range(name, address)))

    def chosen(address: str | None, port: int | None) -> bool:
        if address is None or port is None:
            return False
        return any(
            low <= port <= high and any(first <= number <= last for number in _numbers_of(address))
            for low, high, first, last in ranges
        )

    def matches_endpoint(holding: Holding) -> bool:
        socket = holding.socket
        return (
            socket.family in INET_FAMILIES
            and socket.proto != "raw"
            and (
                chosen(socket.local_addr, socket.local_port)
                or chosen(socket.remote_addr, socket.remote_port)
            )
        )

    return matches_endpoint


def scope(name: str, values: list[str]) -> Predicate:
    """Compile whether a socket is external: an IP socket without a loopback address."""
    chosen = words(name, values, SCOPES)
    is_loopback = addresses(name, [*_LOOPBACK])

    def matches_scope(holding: Holding) -> bool:
        is_external = holding.socket.family in INET_FAMILIES and not is_loopback(holding)
        return ("external" if is_external else "local") in chosen

    return matches_scope


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
