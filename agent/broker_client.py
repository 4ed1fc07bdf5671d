"""The client of the library for any program in the place of a broker: what is not understood ends
the connection. Imported only where the library is."""

from __future__ import annotations

from asyncio import InvalidStateError

from nats.aio.client import Client
from nats.errors import Error, ProtocolError, SecureConnWantedError
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, Parser

from .broker_answers import NOT_UNDERSTOOD, UnusableCredentials

# A broker allows messages of 64 MiB at most; a line names it, or has the settings of a cluster.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MAX_LINE_BYTES = 1024 * 1024
# What the library raises where a broker sends other types, or what is no number, JSON or UTF-8.
_ODD = (
    ArithmeticError, AssertionError, AttributeError, InvalidStateError, LookupError,
    RecursionError, TypeError, ValueError,
)  # fmt: skip


class NotUnderstood(Error):  # type: ignore[misc]
    """The broker sent what no broker sends."""

    def __init__(self) -> None:
        super().__init__(NOT_UNDERSTOOD)


class CarefulParser(Parser):  # type: ignore[misc]
    """Ends the connection where the library would only log, and where it would keep all bytes."""

    async def parse(self, data: bytes = b"") -> None:
        """Take bytes. Raises exceptions of the library, which end the connection."""
        try:
            await super().parse(data)
        except (*_ODD, ProtocolError) as error:
            raise await self._refusal() from error
        is_message = self.state == AWAITING_MSG_PAYLOAD
        if self.needed > _MAX_MESSAGE_BYTES or (not is_message and len(self.buf) > _MAX_LINE_BYTES):
            raise await self._refusal()

    async def _refusal(self) -> ProtocolError:
        await self.nc.report(NotUnderstood())
        return ProtocolError()


class CarefulClient(Client):  # type: ignore[misc]
    """A client that raises only exceptions of the library, OSError and UnusableCredentials."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = CarefulParser(self)

    async def report(self, error: Exception) -> None:
        """Report an error as the library does."""
        await self._error_cb(error)

    def _connect_command(self) -> bytes:
        nonce, headers = self._server_info.get("nonce", ""), self._server_info.get("headers")
        if not isinstance(nonce, str) or not nonce.isascii() or headers not in (None, True, False):
            raise NotUnderstood
        if self._user_credentials is None:
            return bytes(super()._connect_command())
        from nkeys import NkeysError

        try:
            return bytes(super()._connect_command())
        except (*_ODD, Error, NkeysError) as error:
            raise UnusableCredentials(str(error).removeprefix("nats: ")) from error

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except (OSError, Error):  # A certificate that is not valid is a ValueError, too.
            raise
        except _ODD as error:
            raise NotUnderstood from error
        largest = self._max_payload
        if isinstance(largest, bool) or not isinstance(largest, int) or largest <= 0:
            raise NotUnderstood


class EncryptedClient(CarefulClient):
    """Sends nothing before the connection is encrypted: the library encrypts it only where the
    other side says so, which may be an attacker."""

    def _connect_command(self) -> bytes:
        if not self._server_info.get("tls_required"):
            raise SecureConnWantedError
        return super()._connect_command()
