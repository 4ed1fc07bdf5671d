"""The command ``sockagent page``: the page for browsers, for the user who runs it.

It is ``--listen`` at a free port of loopback, with a token of its own; with ``--connect`` a relay.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .config import FLEET, LocalPage
from .errors import CommandError
from .grammar import parse
from .stream.filters import FILTERS
from .stream.fleet import is_broker_url

HELP = """\
usage: sockagent page [TARGET]... [OPTION]... [--connect URL]... | --read FILE

Show the sockets of this machine in a browser, as they open and close. A free port of 127.0.0.1
serves the page until ^C; its URL, with a token that nobody else knows, is printed on stderr, and
opened in a browser where there is one.

  --no-open      Open no browser.
  --connect URL  Show the sockets of other agents, together: ws://HOST:PORT, wss://HOST:PORT,
                 unix:PATH, or a fleet at nats://HOST:PORT/PREFIX or tls://HOST:PORT/PREFIX.
  --read FILE    Show a recording, such as the output of sockagent --follow, or the directory of
                 --record; - is standard input.
  -h, --help     Print this help and exit.

TARGETS, filters, and the options that say how to read the system (--interval, --sweep, --cmdline,
--proc, --source, --events, --events-udp, --stats, --max-user-...) are those of sockagent: see
sockagent --help all. With --connect the system is not read; --token-file, --tls-cert, --tls-key,
--tls-ca, and of a fleet --since, --nats-creds and --insecure say how to reach the agents.

From another machine: ssh -L 8765:127.0.0.1:PORT HOST, then http://localhost:8765/#token=TOKEN

Exit status: 0 ended by ^C, 1 failure, 2 wrong usage.
"""
# Where the page is served; 0 is any free port.
ADDRESS = "127.0.0.1:0"
_NO_OPEN = "--no-open"
_READ = "read"
_CONNECT = "connect"
# Options that always apply, as far as they agree with each other.
_ACCEPTED = frozenset({
    "target", _READ, _CONNECT, "interval", "sweep", "stats", "cmdline", "proc", "source", "events",
    "events_udp", "max_user_descriptors", "max_user_holdings", "max_user_namespaces", *FILTERS,
})  # fmt: skip
# Files of the client. Those of the server have these names, too, but the page needs none.
_CLIENT_FILES = ("token_file", "tls_cert", "tls_key", "tls_ca")
# Options that apply with --connect, and those of them that apply to a fleet.
_FLEET = frozenset({"since", "nats_creds", "insecure"})
_REMOTE = frozenset({*_CLIENT_FILES, *(f"connect_{name}" for name in _CLIENT_FILES), *_FLEET})
# Options whose names differ from those of their settings.
_NEGATIVE = {"header": "no-header", "page": "no-page"}
_TOKEN_BYTES = 24


def is_help(words: Sequence[str]) -> bool:
    """Return whether the words after ``page`` ask for help."""
    return any(word in ("-h", "--help") for word in words)


def parse_page(words: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Return the options of the words after ``page``, and whether to open a browser. Raises
    CommandError, and SystemExit after printing the version."""
    parsed = parse([word for word in words if word != _NO_OPEN])
    # What is not given is False, unless giving it makes it False.
    given = {
        name: value for name, value in parsed.items() if value is not False or name in _NEGATIVE
    }
    urls = given.get(_CONNECT, [])
    has_fleet = any(map(is_broker_url, urls))
    for name in given:
        if name in _FLEET and not has_fleet:
            raise CommandError(f"page: {_option(name)} requires {FLEET}")
        if name in _REMOTE and not urls:
            raise CommandError(f"page: {_option(name)} requires --connect")
        if name not in _ACCEPTED | _REMOTE:
            raise CommandError(f"page: {_option(name)} does not apply; see sockagent page --help")
    others = [name for name in given if name != _READ]
    if _READ in given and others:
        what = "targets" if others[0] == "target" else _option(others[0])
        raise CommandError(f"page: --read cannot be combined with {what}; filter in the page")
    return _for_agents(given), _NO_OPEN not in words


def _for_agents(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options, with the files of the client as those of a relay. Raises CommandError."""
    options = dict(given)
    for name in _CLIENT_FILES:
        other = f"connect_{name}"
        if name in options and other in options:
            raise CommandError(
                f"page: {_option(other)} cannot be combined with {_option(name)}; give one of them"
            )
        if name in options:
            options[other] = options.pop(name)
    return options


def _option(name: str) -> str:
    return f"--{_NEGATIVE.get(name, name).replace('_', '-')}"


@contextmanager
def local_page(environment: Mapping[str, str], *, opens: bool) -> Iterator[LocalPage]:
    """Return a page with a new token. ``opens``: a browser is opened. What it was given to read is
    removed at the end."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    if not opens:
        yield LocalPage(token)
        return
    directory = environment.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    redirect = os.path.join(directory, f"sockagent-{secrets.token_hex(8)}.html")
    try:
        yield LocalPage(token, redirect)
    finally:
        with suppress(OSError):
            os.unlink(redirect)
