"""Who may read the feed: tokens, and the ``Host`` and ``Origin`` that browsers send. Pure.

A page of a foreign site can make its visitor's browser connect to this machine; its origin gives it
away. A name that leads here only since it was resolved anew (DNS rebinding) is none that we know.
It knows headers and nothing of connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import ip_address
from typing import NamedTuple, Protocol

PROTOCOL = "sockagent.v1"
TOKEN_PROTOCOL = "sockagent.token."  # noqa: S105 (what comes before the token)
_BEARER = "bearer "
# Tokens in one request: each is compared with all that are known, 0.5 µs each.
MAX_TOKENS = 4


class Headers(Protocol):
    """What is needed of a request's headers."""

    def get_all(self, key: str) -> list[str]:
        """The values of one name, in their order."""


class Refusal(NamedTuple):
    """Why a request is refused: HTTP status and a sentence."""

    status: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Access:
    """The rules. No ``tokens``: everybody who reaches the socket may."""

    tokens: tuple[str, ...] = ()
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset({"localhost"})

    def refusal(
        self, headers: Headers, *, local: bool, trusted: bool, free: bool
    ) -> Refusal | None:
        """Why a request is refused; None when it is not.

        ``local``: it came over a unix socket, which no browser reaches. ``trusted``: from a user
        who needs no token. ``free``: what it asks for is for everybody.
        """
        if not local and (refusal := self._host(headers.get_all("Host"))):
            return refusal
        origins = headers.get_all("Origin")
        if any(origin.lower() not in self.origins for origin in origins):
            return Refusal(403, "this origin may not read the feed; --allow-origin lets it")
        if free or trusted or not self.tokens:
            return None
        given = tokens(headers)
        if not given:
            return Refusal(401, "a token is needed")
        if len(given) > MAX_TOKENS:
            return Refusal(400, f"there are more than {MAX_TOKENS} tokens in the request")
        if not any(self._is_known(token) for token in given):
            return Refusal(401, "the token is wrong")
        return None

    def _host(self, given: Sequence[str]) -> Refusal | None:
        if len(given) != 1:
            return Refusal(400, "one Host header is needed")
        host = host_of(given[0])
        if host in self.hosts or is_address(host):
            return None
        return Refusal(403, "this agent is not known by that name; --allow-host adds one")

    def _is_known(self, given: str) -> bool:
        # Every one is compared, whatever the first ones gave.
        encoded = given.encode(errors="surrogateescape")
        return sum(compare_digest(encoded, token.encode()) for token in self.tokens) > 0


def host_of(header: str) -> str:
    """The host in a Host header, without port and brackets, in lower case."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def is_address(host: str) -> bool:
    """Whether it is an address: that cannot be made to lead anywhere else."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def tokens(headers: Headers) -> list[str]:
    """The tokens that a request carries."""
    found = [
        value[len(_BEARER) :].strip()
        for value in headers.get_all("Authorization")
        if value.lower().startswith(_BEARER)
    ]
    found += [
        name.removeprefix(TOKEN_PROTOCOL)
        for name in offered(headers.get_all("Sec-WebSocket-Protocol"))
        if name.startswith(TOKEN_PROTOCOL)
    ]
    return found


def offered(values: Iterable[str]) -> list[str]:
    """The subprotocols in these headers."""
    return [name.strip() for value in values for name in value.split(",")]


def parse_tokens(content: str) -> tuple[str, ...]:
    """The tokens of a file: one a line; empty lines and those that begin with # are none."""
    lines = (line.strip() for line in content.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
