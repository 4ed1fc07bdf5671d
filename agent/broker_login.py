"""Connecting to a NATS broker: credentials, the subject of answers, encryption, and the meaning of
errors. Publishers and readers of a fleet use it."""

from __future__ import annotations

import binascii
import json
import os
import re
import ssl
import stat
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .broker_answers import UnusableCredentials
from .errors import ConfigFailure, RuntimeFailure

if TYPE_CHECKING:
    from nats.aio.client import Client

OPEN_SECONDS = 5.0
# A connection of which nothing is heard is given up after twice this time.
_PING_SECONDS = 10
EXTRA = "this needs the package nats-py: pip install 'sockagent[nats]'"
# Content of the file where the service has no credentials: see the unit.
_NO_CREDENTIALS = "(none)"
_CREDENTIALS_MARK = "BEGIN NATS USER JWT"
# The claims of the user in such a file: the second part of its token.
_CLAIMS = re.compile(rf"-{_CREDENTIALS_MARK}-+\s+[\w-]+\.([\w-]+)\.", re.ASCII)
_INBOX = "_INBOX"
# Names that can be part of a subject.
_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
_DENIED = "permissions violation"
# Parts of the errors that a broker reports to a user that it does not know.
_UNKNOWN_USER = ("authorization", "authentication", "user jwt")


class Reason(NamedTuple):
    """Why a broker cannot be used, as a clause. ``is_lasting``: only an administrator ends it;
    ``is_lost``: the connection is of no more use."""

    text: str
    is_lasting: bool = False
    is_lost: bool = True


def is_denial(error: Exception) -> bool:
    """Return whether the broker does not permit something."""
    return _DENIED in str(error).lower()


def explain(error: Exception | None, *, is_identified: bool) -> Reason:
    """Return what an exception of the library means. ``is_identified``: the client has a user,
    or credentials."""
    from nats.errors import SecureConnWantedError
    from nats.errors import TimeoutError as NoAnswer

    text = str(error or "").removeprefix("nats: ").strip("' ")
    lowered = text.lower()
    if _DENIED in lowered:
        # The library subscribes once, and a broker reports once that it does not permit that.
        is_lost = "for subscription" in lowered
        return Reason(f"the broker does not permit it: {text}", is_lasting=True, is_lost=is_lost)
    # The same words with "timeout": the broker is busy.
    if any(part in lowered for part in _UNKNOWN_USER) and "timeout" not in lowered:
        if not is_identified:
            text = "the broker requires credentials; give a file with --nats-creds"
            return Reason(text, is_lasting=True)
        return Reason(f"the broker refuses the credentials: {text}", is_lasting=True)
    if isinstance(error, SecureConnWantedError):
        return Reason("the broker does not use TLS", is_lasting=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Reason(error.verify_message, is_lasting=True)
    if isinstance(error, (NoAnswer, TimeoutError)):
        return Reason("the broker does not answer")
    if isinstance(error, OSError):
        # asyncio replaces the texts of the system by others.
        number = error.errno or 0
        text = (os.strerror(number) if number > 0 else error.strerror) or text
    return Reason(text or "connection lost")


class Entry(NamedTuple):
    """How to get into a broker: its servers, the user that its URL names, and the path of a file
    that nsc wrote, or that has the password of the user, or a token."""

    servers: Sequence[str]
    user: str | None = None
    credentials: str | None = None
    tls: ssl.SSLContext | None = None

    async def connect(
        self,
        client: Client,
        on_error: Callable[[Exception], Awaitable[None]],
        on_close: Callable[[], Awaitable[None]],
        **options: str,
    ) -> None:
        """Connect, once: the library's own reconnecting would keep messages that were given up, and
        deliver them late. ``options`` are further ones of the library, with those of ``login``.
        Raises ConfigFailure, OSError and exceptions of the library."""
        try:
            await client.connect(
                list(self.servers),
                error_cb=on_error,
                closed_cb=on_close,
                disconnected_cb=on_close,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=OPEN_SECONDS,
                ping_interval=_PING_SECONDS,
                max_outstanding_pings=1,
                tls=self.tls,
                **options,
            )
        except OSError:  # A certificate that is not valid is a ValueError, too.
            raise
        except UnusableCredentials as error:
            raise ConfigFailure(f"credentials {self.credentials}: {error}") from error
        except ValueError as error:  # A name that no host can have.
            raise ConfigFailure(f"{', '.join(self.servers)}: {error}") from error

    def explain(self, error: Exception | None, reported: Exception | None) -> Reason:
        """Return what an exception of the library means. ``reported`` is the newest one that the
        library did not raise."""
        from nats.errors import NoServersError

        # The library replaces the reason by the fact that no server is left.
        if isinstance(error, (NoServersError, TimeoutError)) and reported is not None:
            error = reported
        is_identified = self.credentials is not None or self.user is not None
        return explain(error, is_identified=is_identified)


def require_library() -> None:
    """Check that the library is installed. Raises RuntimeFailure."""
    try:
        import nats.aio.client  # noqa: F401
    except ImportError as error:
        raise RuntimeFailure(EXTRA) from error


def new_client(*, is_encrypted: bool) -> Client:
    """Return a client of the library that is not connected. Raises ImportError without it."""
    from .broker_client import CarefulClient, EncryptedClient

    return EncryptedClient() if is_encrypted else CarefulClient()


def login(path: str | None, user: str | None) -> dict[str, str]:
    """Return the options of the library that identify the user. ``path`` is that of a file which
    nsc wrote, or of one with the password of ``user`` or a token. Raises ConfigFailure and
    RuntimeFailure."""
    if path is None:
        return {} if user is None else {"user": user, "password": ""}
    text = _text_of(path)
    if _CREDENTIALS_MARK in text:
        try:
            import nkeys  # noqa: F401
        except ImportError as error:
            raise RuntimeFailure(EXTRA.replace("nats-py", "nkeys")) from error
        return {"user_credentials": path}
    secret = text.strip()
    if secret == _NO_CREDENTIALS:
        return {}
    if not secret:
        raise ConfigFailure(f"credentials {path}: the file is empty")
    return {"token": secret} if user is None else {"user": user, "password": secret}


def reader_inbox(path: str | None, user: str | None) -> str:
    """Return the subject below which a reader gets its answers: one of its user, who may be
    permitted no other. Without a user it is that of all. The arguments are those of ``login``.
    Raises ConfigFailure."""
    if user is None and path is not None:
        user = _user_of(_text_of(path))
    return f"{_INBOX}.{user}" if user and _SUBJECT.fullmatch(user) else _INBOX


def _user_of(credentials: str) -> str | None:
    """Return the name in a file that nsc wrote."""
    claims = _CLAIMS.search(credentials)
    if claims is None:
        return None
    try:
        name = json.loads(urlsafe_b64decode(claims[1] + "=="))["name"]
    except (binascii.Error, ValueError, LookupError, TypeError):
        return None
    return name if isinstance(name, str) else None


def _text_of(path: str) -> str:
    try:
        # A pipe may be open for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigFailure(f"credentials {path}: not a regular file")
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigFailure(f"credentials {path}: {reason}") from error
