"""A connection whose TLS handshake is still to come: counted among the handshakes, as any other.

asyncio by itself tells of a connection only when its handshake is through.
"""

from __future__ import annotations

import asyncio
import ssl

from .connection import Client, House
from .peers import tcp_peer
from .rejections import NO_TLS

# How long the end of TLS may take.
_SHUTDOWN_SECONDS = 1.0


class Handshake(asyncio.Protocol):
    """What a connection begins with."""

    def __init__(self, house: House, context: ssl.SSLContext, seconds: float) -> None:
        self._house = house
        self._context = context
        self._seconds = seconds
        self._shaking: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is connected."""
        assert isinstance(transport, asyncio.Transport)
        client = Client(self._house, tcp_peer)
        client.begins_tls(transport)
        loop = asyncio.get_running_loop()
        self._shaking = loop.create_task(self._shake(transport, client))

    async def _shake(self, transport: asyncio.Transport, client: Client) -> None:
        try:
            safe = await asyncio.get_running_loop().start_tls(
                transport,
                client,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._seconds,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except OSError as error:
            # It is no TLS, or without the certificate that is asked for, or gone. The traceback
            # has the error in one of its frames, and asyncio's buffer of 256 KiB in another: a
            # cycle, which would stay until the garbage collector runs, which it does seldom.
            error.__traceback__ = None
            safe = None
        if safe is None:
            if not client.closing:  # It is not we who ended it.
                self._house.refused(client, NO_TLS)
            transport.abort()
            client.connection_lost(None)
        else:
            client.connection_made(safe)
