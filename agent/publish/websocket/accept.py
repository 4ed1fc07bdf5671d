"""New connections: the peer is determined, and TLS is started where the listener has it.

asyncio itself reports a TLS connection only after its handshake. Here it is counted as pending from
its first moment on, as any other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from . import limits
from .connection import Connection, Host
from .peers import Peer

# How long asyncio waits for the peer's TLS close_notify.
_TLS_SHUTDOWN_SECONDS = 1.0


class Acceptor(asyncio.Protocol):
    """The protocol of a new connection, until ``connection_made`` replaces it."""

    def __init__(
        self,
        host: Host,
        add: Callable[[Connection], None],
        peer_of: Callable[[asyncio.BaseTransport], Peer],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._host = host
        self._add = add
        self._peer_of = peer_of
        self._tls = tls
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make the connection and add it to the server."""
        assert isinstance(transport, asyncio.Transport)
        tls = self._tls
        peer = self._peer_of(transport)
        connection = Connection(self._host, transport, peer, awaits_tls=tls is not None)
        transport.set_protocol(connection)
        self._add(connection)
        if tls is not None:
            self._handshake = asyncio.create_task(_start_tls(connection, transport, tls))


async def _start_tls(
    connection: Connection, transport: asyncio.Transport, tls: ssl.SSLContext
) -> None:
    try:
        secured = await asyncio.get_running_loop().start_tls(
            transport,
            connection,
            tls,
            server_side=True,
            ssl_handshake_timeout=limits.HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=_TLS_SHUTDOWN_SECONDS,
        )
    except OSError as error:
        # Not TLS, no accepted client certificate, or disconnected. The traceback refers to the
        # error in one of its frames, and to asyncio's buffer of 256 KiB in another: a cycle, which
        # would stay until the garbage collector runs, which is rare.
        error.__traceback__ = None
        secured = None
    if secured is None:
        connection.fail_tls()
    else:
        connection.secure(secured)
