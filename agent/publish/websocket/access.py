"""Who a client is, and whether it may make requests: its peer, its token, and the ``Host`` and
``Origin`` headers that browsers send.

A web page of another site can make a visitor's browser connect to this machine: its origin is
neither this server nor among the allowed ones. A host name that an attacker points to this machine
(DNS rebinding) is not among the known host names. Its origin agrees with ``Host``, so that ``Host``
is checked first. Pure: headers in, a refusal out.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

from websockets.datastructures import Headers

from .rejections import Refusal

PROTOCOL = "sockagent.v1"
TOKEN_PROTOCOL = "sockagent.token."  # noqa: S105 (the prefix of a token)
_BEARER = "bearer "
# Tokens accepted in one request: each is compared with every known token, 0.5 µs each.
MAX_TOKENS = 4
# The network part of an IPv6 address; a host may choose any of the addresses in its network.
_PREFIX_BITS = 64
# struct ucred of unix(7): pid, uid, gid.
_UCRED = struct.Struct("=iII")
# An address in brackets, or a name or IPv4 address; and a port, which may be empty.
_HOST = re.compile(r"(?:\[([^]]*)\]|([^:]*))(?::\d*)?", re.ASCII | re.DOTALL)
# An origin of the web: scheme, host, and the port unless it is the default one.
_ORIGIN = re.compile(
    r"(https?)://([\w.-]+|\[[\da-f:.]+\])(?::(\d{1,5}))?", re.ASCII | re.IGNORECASE
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Peer(NamedTuple):
    """The peer of a connection. ``group`` is the address, IPv6 network or user whose connections
    are limited together. ``uid`` is known for unix sockets only. ``has_tls``: the connection is
    one over TLS."""

    name: str
    group: str
    uid: int | None = None
    has_tls: bool = False


class Origin(NamedTuple):
    """Where a web page is from. The host is in lower case."""

    scheme: str
    host: str
    port: int


def tcp_peer(transport: asyncio.BaseTransport) -> Peer:
    """Return the peer of a TCP connection."""
    name = transport.get_extra_info("peername")
    if not name:  # It has disconnected already.
        return Peer("a client", "")
    host, port = name[:2]
    return Peer(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", _group(host))


def _group(host: str) -> str:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None and not address.is_loopback:
            return str(ip_network((int(address), 128)).supernet(new_prefix=_PREFIX_BITS))
        address = address.ipv4_mapped or address
    return "loopback" if address.is_loopback else str(address)


def unix_peer(transport: asyncio.BaseTransport) -> Peer:
    """Return the peer of a unix socket. Its process may have exited since it connected."""
    connection = transport.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(credentials)
    return Peer(f"process {pid} of user {uid}", f"user {uid}", uid)


@dataclass(frozen=True, slots=True)
class Access:
    """Tokens, allowed origins and known host names. Without tokens none is required."""

    tokens: tuple[str, ...] = ()
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset({"localhost"})

    def check(
        self,
        headers: Headers,
        *,
        is_local: bool,
        is_trusted: bool,
        is_public: bool,
        has_tls: bool = False,
    ) -> Refusal | None:
        """Return why a request is refused, or None.

        ``is_local``: it came over a unix socket, which browsers cannot reach. ``is_trusted``: its
        user needs no token. ``is_public``: the path needs no token. ``has_tls``: it came over TLS.
        """
        own = None
        if not is_local:
            hosts = headers.get_all("Host")
            refusal = self._check_host(hosts)
            if refusal is not None:
                return refusal
            own = parse_origin(f"{'https' if has_tls else 'http'}://{hosts[0].strip()}")
        if not all(self._is_allowed(origin, own) for origin in headers.get_all("Origin")):
            return _refusal(403, "origin not allowed; allow it with --allow-origin")
        if is_public or is_trusted or not self.tokens:
            return None
        tokens = request_tokens(headers)
        if not tokens:
            return _unauthorized("token required")
        if len(tokens) > MAX_TOKENS:
            return _refusal(400, f"too many tokens in the request; the limit is {MAX_TOKENS}")
        if not any(self._is_known(token) for token in tokens):
            return _unauthorized("invalid token")
        return None

    def _check_host(self, values: Sequence[str]) -> Refusal | None:
        if len(values) != 1:
            return _refusal(400, "expected one Host header")
        host = parse_host(values[0])
        if host is None:
            return _refusal(400, "malformed Host header; expected HOST or HOST:PORT")
        if host in self.hosts or is_address(host):
            return None
        return _refusal(403, "unknown host name in the Host header; allow it with --allow-host")

    def _is_allowed(self, origin: str, own: Origin | None) -> bool:
        """Return whether pages of an origin may make requests. ``own`` is the origin of the pages
        of this server, as the client addresses it; None where the client may invent it."""
        if origin.lower() in self.origins:
            return True
        return own is not None and parse_origin(origin) == own

    def _is_known(self, token: str) -> bool:
        # All known tokens are compared, so that the time does not depend on which one matches.
        encoded = token.encode(errors="surrogateescape")
        return sum(compare_digest(encoded, known.encode()) for known in self.tokens) > 0


def _refusal(status: int, message: str) -> Refusal:
    return Refusal(status, message, is_logged=True)


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, message, is_logged=True, headers=(("WWW-Authenticate", "Bearer"),))


def parse_host(header: str) -> str | None:
    """Return the host of a Host header, without port and brackets, in lower case; None if the
    header is malformed."""
    found = _HOST.fullmatch(header.strip().lower())
    if found is None:
        return None
    address, name = found.groups()
    return address if name is None else name.removesuffix(".")


def parse_origin(text: str) -> Origin | None:
    """Return the origin that an Origin header names; None if it names none of the web."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host, port = found.groups()
    scheme = scheme.lower()
    return Origin(scheme, host.lower(), int(port) if port else _DEFAULT_PORTS[scheme])


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, which DNS rebinding cannot redirect."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def request_tokens(headers: Headers) -> list[str]:
    """Return the tokens of a request."""
    bearers = [
        value[len(_BEARER) :].strip()
        for value in headers.get_all("Authorization")
        if value.lower().startswith(_BEARER)
    ]
    return bearers + [
        name.removeprefix(TOKEN_PROTOCOL)
        for value in headers.get_all("Sec-WebSocket-Protocol")
        for name in map(str.strip, value.split(","))
        if name.startswith(TOKEN_PROTOCOL)
    ]


def parse_tokens(content: str) -> tuple[str, ...]:
    """Return the tokens of a file: one per line; # begins a comment line."""
    lines = (line.strip() for line in content.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
