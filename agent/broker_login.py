"""How a client of a NATS broker identifies itself: by the file of ``--nats-creds``."""

from __future__ import annotations

from .errors import ConfigFailure, RuntimeFailure

EXTRA = "this needs the package nats-py: pip install 'sockagent[nats]'"
# Content of the file where the service has no credentials: see the unit.
_NO_CREDENTIALS = "(none)"
_CREDENTIALS_MARK = "BEGIN NATS USER JWT"


def login(path: str | None, user: str | None) -> dict[str, str]:
    """Return the options of the library that identify the user. ``path`` is that of a file which
    nsc wrote, or of one with the password of ``user`` or a token. Raises ConfigFailure and
    RuntimeFailure."""
    if path is None:
        return {} if user is None else {"user": user, "password": ""}
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigFailure(f"credentials {path}: {reason}") from error
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
