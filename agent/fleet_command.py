"""The command ``sockagent fleet``: configure a broker for a fleet, and make its stream."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from .config import Network
from .errors import CommandError, ConfigFailure, RuntimeFailure, UsageError
from .fleet_settings import Keep, parse_keep
from .grammar import parse
from .log import log
from .remote.nats.reports import SessionError
from .remote.nats.session import open_session
from .secrets import client_tls
from .stream.fleet import DEFAULT_PREFIX, Broker, InvalidFleetMessage, parse_broker, subject

HELP = """\
usage: sockagent fleet config [--tls-cert FILE --tls-key FILE] HOST...
       sockagent fleet init --connect URL [--nats-creds FILE] [--keep AGE|SIZE]...

Set up a NATS broker for a fleet: see docs/fleet.md.

  config  Print a configuration of nats-server with a user for each HOST, who may publish as that
          host alone, and the users admin and reader. Their passwords are read from the files
          USER.creds in this directory, which are written where there are none. Without a
          certificate the broker listens on 127.0.0.1 only.
  init    Make the stream at the broker URL, nats://admin@HOST or tls://admin@HOST, or change what
          it keeps: by default 48 hours and 10 GiB, whatever is reached first. --tls-ca, --tls-cert,
          --tls-key and --insecure are those of sockagent --connect.
  -h, --help  Print this help and exit.

Exit status: 0 done, 1 failure, 2 wrong usage, 78 unusable file.
"""
ADMIN, READER = "admin", "reader"
DEFAULT_KEEP = Keep(48 * 3600, 10 * 2**30)
_SEE_HELP = "; see sockagent fleet --help"
_ACCEPTED = {
    "config": frozenset({"target", "tls_cert", "tls_key"}),
    "init": frozenset({
        "connect", "nats_creds", "keep", "insecure", "tls_ca", "tls_cert", "tls_key",
    }),
}  # fmt: skip
# Settings that are not named as their options.
_OTHERS = {"header": "--no-header", "page": "--no-page", "target": "a target"}
# Messages that are sent twice are refused by their expected sequence, not by this window.
_DUPLICATE_WINDOW_SECONDS = 2
_NANOSECONDS = 1_000_000_000
_PASSWORD_BYTES = 24
# How long a broker that was just started may take until it answers, and between two attempts.
_START_SECONDS, _PAUSE_SECONDS = 5.0, 0.2
# The code of the error of JetStream that the stream would be larger than the broker's storage.
_NO_STORAGE = 10047
# What a reader asks of the stream.
_READER_CALLS = ("STREAM.INFO.{}", "CONSUMER.CREATE.{}.>", "CONSUMER.MSG.NEXT.{}.>",
                 "CONSUMER.DELETE.{}.>")  # fmt: skip


def run_fleet(words: Sequence[str]) -> str:
    """Run the command with the words that follow ``fleet``; return what to print. Raises
    CommandError, UsageError, ConfigFailure and RuntimeFailure."""
    if any(word in ("-h", "--help") for word in words):
        return HELP
    call = words[0] if words else ""
    if call not in _ACCEPTED:
        raise CommandError(f"fleet: expected config or init, not {call!r}{_SEE_HELP}")
    # What is not given is False, unless giving it makes it False.
    given = {
        name: value
        for name, value in parse(words[1:]).items()
        if value is not False or name in _OTHERS
    }
    for name in given.keys() - _ACCEPTED[call]:
        option = _OTHERS.get(name, f"--{name.replace('_', '-')}")
        raise CommandError(f"fleet {call}: {option} does not apply{_SEE_HELP}")
    if call == "init":
        asyncio.run(_init(given))
        return ""
    if not given.get("target"):
        raise CommandError(f"fleet config: name the hosts{_SEE_HELP}")
    certificate = [given[name] for name in ("tls_cert", "tls_key") if name in given]
    if len(certificate) == 1:
        raise CommandError("fleet config: --tls-cert and --tls-key belong together")
    users = [_user_of(host) for host in given["target"]]
    tls = tuple(map(_existing, certificate)) or None
    found = {user: _password_of(user) for user in dict.fromkeys((ADMIN, READER, *users))}
    new = sum(is_new for _, is_new in found.values())
    log(f"passwords: {len(found)}, of which {new} are new, in files USER.creds in {os.getcwd()}")
    return broker_config({user: password for user, (password, _) in found.items()}, tls)


# The configuration of the broker.


def _user_of(host: str) -> str:
    """Return the name of a host as a user: its token in subjects. Raises CommandError."""
    words = host.replace(",", " ").split()
    if words != [host]:
        names = f"; write the names as separate words: {' '.join(words)}" if words else ""
        raise CommandError(f"fleet config: {host!r} is not the name of a host{names}")
    try:
        user = subject("", host)[1:]
    except InvalidFleetMessage as error:
        raise CommandError(f"fleet config: {host!r}: {error}") from error
    if user in (ADMIN, READER):
        raise CommandError(f"fleet config: {user} is the name of another user")
    return user


def _existing(path: str) -> str:
    """Return the whole path of a file. Raises ConfigFailure if it is not there."""
    try:
        os.stat(path)
    except OSError as error:
        raise ConfigFailure(f"{path}: {error.strerror}") from error
    return os.path.abspath(path)


def _password_of(user: str) -> tuple[str, bool]:
    """Return the password in a file, or a new one, which is written there, and whether it is new.
    Raises ConfigFailure."""
    path = f"{user}.creds"
    try:
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            with open(path, encoding="ascii") as known:
                password = known.read().strip()
            if not password.replace("-", "").replace("_", "").isalnum():
                raise ConfigFailure(f"{path}: not a password of sockagent fleet config") from None
            return password, False
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        with open(file, "w", encoding="ascii") as made:
            made.write(f"{password}\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a password"
        raise ConfigFailure(f"{path}: {reason}") from error
    return password, True


def broker_config(passwords: dict[str, str], tls: tuple[str, ...] | None) -> str:
    """Return the configuration of a broker with these users. ``tls`` are the paths of a certificate
    and its key; without them it listens on loopback."""
    address = "127.0.0.1" if tls is None else "0.0.0.0"  # noqa: S104 (with TLS and passwords)
    lines = [f'listen: "{address}:4222"', 'jetstream { store_dir: "/var/lib/nats" }']
    if tls is not None:
        lines.append(f'tls {{ cert_file: "{tls[0]}", key_file: "{tls[1]}" }}')
    lines.append("authorization { users: [")
    for user, password in passwords.items():
        lines.append(f'  {{ user: "{user}", password: "{password}"{_permissions(user)} }}')
    return "\n".join([*lines, "] }", ""])


def _permissions(user: str) -> str:
    if user == ADMIN:
        return ""
    stream = DEFAULT_PREFIX.upper()
    if user == READER:
        publish = [f"$JS.API.{call.format(stream)}" for call in _READER_CALLS]
    else:
        name = f"{DEFAULT_PREFIX}.{user}"
        publish = [name, f"$JS.API.DIRECT.GET.{stream}.{name}"]
    return (
        f", permissions: {{ publish: [{_quoted(publish)}], subscribe: "
        f"[{_quoted([f'_INBOX.{user}.>'])}] }}"
    )


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


# The stream.


async def _init(given: dict[str, Any]) -> None:
    keep = parse_keep(given.pop("keep", []))
    urls = given.get("connect", [])
    if len(urls) != 1:
        raise CommandError(f"fleet init: give one URL with --connect{_SEE_HELP}")
    network = Network(**{**given, "connect": tuple(urls)})
    if not network.has_fleet:
        raise UsageError("connect", "expected nats://HOST:PORT or tls://HOST:PORT")
    broker = parse_broker(urls[0])
    tls = client_tls(network) if broker.is_encrypted else None
    settings = stream_settings(broker, keep)
    clock = asyncio.get_running_loop().time
    end = clock() + _START_SECONDS
    while True:
        try:
            async with open_session(broker, network.nats_creds, tls) as session:
                is_new = await session.make_stream(settings)
            break
        except SessionError as error:
            if error.is_final or error.code is not None or clock() > end:
                advice = "; keep less, for example --keep 1G" if error.code == _NO_STORAGE else ""
                raise RuntimeFailure(f"{urls[0]}: {error}{advice}") from error
        await asyncio.sleep(_PAUSE_SECONDS)
    log(f"{urls[0]}: {'made' if is_new else 'changed'} the stream {broker.stream}")


def stream_settings(broker: Broker, keep: Keep) -> dict[str, object]:
    """Return the settings of the stream of a fleet. What ``keep`` does not limit has the default
    limit."""
    seconds = keep.seconds or DEFAULT_KEEP.seconds or 0
    return {
        "name": broker.stream,
        "subjects": [f"{broker.prefix}.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": seconds * _NANOSECONDS,
        "max_bytes": keep.size or DEFAULT_KEEP.size,
        "max_msgs": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "num_replicas": 1,
        "duplicate_window": _DUPLICATE_WINDOW_SECONDS * _NANOSECONDS,
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
    }
