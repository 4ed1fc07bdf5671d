"""How a client of a NATS broker connects: what it identifies itself with, where its answers arrive,
and that nothing is sent before the connection is encrypted where it shall be."""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING

from .errors import ConfigFailure, RuntimeFailure

if TYPE_CHECKING:
    from nats.aio.client import Client

EXTRA = "this needs the package nats-py: pip install 'sockagent[nats]'"
# Content of the file where the service has no credentials: see the unit.
_NO_CREDENTIALS = "(none)"
_CREDENTIALS_MARK = "BEGIN NATS USER JWT"
# The claims of the user in such a file: the second part of its token.
_CLAIMS = re.compile(rf"-{_CREDENTIALS_MARK}-+\s+[\w-]+\.([\w-]+)\.", re.ASCII)
_INBOX = "_INBOX"
# Names that can be part of a subject.
_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")


def new_client(*, is_encrypted: bool) -> Client:
    """Return a client of the library that is not connected. Raises ImportError without it."""
    from nats.aio.client import Client
    from nats.errors import SecureConnWantedError

    class EncryptedClient(Client):  # type: ignore[misc]
        """Sends nothing before the connection is encrypted: the library encrypts it only where the
        other side says so, which may be an attacker."""

        def _connect_command(self) -> bytes:
            if not self._server_info.get("tls_required"):
                raise SecureConnWantedError
            return bytes(super()._connect_command())

    return EncryptedClient() if is_encrypted else Client()


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
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigFailure(f"credentials {path}: {reason}") from error
