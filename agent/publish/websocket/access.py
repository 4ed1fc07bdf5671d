"""Access rules of the feed: tokens, and the ``Host`` and ``Origin`` headers that browsers send.

A web page of another site can make a visitor's browser connect to this machine: its origin is not
among the allowed ones. A host name that an attacker points to this machine (DNS rebinding) is not
among the known host names. Pure: headers in, a refusal out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import ip_address
from typing import Protocol

from .rejections import Refusal

PROTOCOL = "sockagent.v1"
TOKEN_PROTOCOL = "sockagent.token."  # noqa: S105 (the prefix of a token)
_BEARER = "bearer "
# Tokens accepted in one request: each is compared with every known token, 0.5 µs each.
MAX_TOKENS = 4


class Headers(Protocol):
    """The headers of a request."""

    def get_all(self, key: str) -> list[str]:
        """Return the values of all headers with this name, in the order of the request."""


@dataclass(frozen=True, slots=True)
class Access:
    """Tokens, allowed origins and known host names. Without tokens none is required."""

    tokens: tuple[str, ...] = ()
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset({"localhost"})

    def check(
        self, headers: Headers, *, is_local: bool, is_trusted: bool, is_public: bool
    ) -> Refusal | None:
        """Return why a request is refused, or None.

        ``is_local``: it came over a unix socket, which browsers cannot reach. ``is_trusted``: its
        user needs no token. ``is_public``: the path needs no token.
        """
        if not is_local and (refusal := self._check_host(headers.get_all("Host"))):
            return refusal
        origins = headers.get_all("Origin")
        if any(origin.lower() not in self.origins for origin in origins):
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
        if host in self.hosts or is_address(host):
            return None
        return _refusal(403, "unknown host name in the Host header; allow it with --allow-host")

    def _is_known(self, token: str) -> bool:
        # All known tokens are compared, so that the time does not depend on which one matches.
        encoded = token.encode(errors="surrogateescape")
        return sum(compare_digest(encoded, known.encode()) for known in self.tokens) > 0


def _refusal(status: int, message: str) -> Refusal:
    return Refusal(status, message, is_logged=True)


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, message, is_logged=True, headers=(("WWW-Authenticate", "Bearer"),))


def parse_host(header: str) -> str:
    """Return the host of a Host header, without port and brackets, in lower case."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


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
        for name in _subprotocols(headers.get_all("Sec-WebSocket-Protocol"))
        if name.startswith(TOKEN_PROTOCOL)
    ]


def _subprotocols(values: Iterable[str]) -> list[str]:
    return [name.strip() for value in values for name in value.split(",")]


def parse_tokens(content: str) -> tuple[str, ...]:
    """Return the tokens of a file: one per line; # begins a comment line."""
    lines = (line.strip() for line in content.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
