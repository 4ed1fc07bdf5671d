"""The command ``sockagent top``: a live screen of who has which sockets.

It shows this machine, remote agents (``--connect``) or a recording (``--read``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from .errors import CommandError, RuntimeFailure
from .grammar import parse
from .stream.filters import FILTERS

HELP = """\
usage: sockagent top [TARGET]... [OPTION]... | --connect URL... | --read FILE

Show who opens, closes and holds sockets, as it happens: grouped by process, unit, container, user,
service, remote address, network namespace or host.

  --connect URL  Show the agent at URL; may be repeated.
  --read FILE    Show a recording; the arrow keys left and right move in time.
  --at TIME      Begin at this time of the recording.
  --read-only    Send no signals: the key k is switched off.
  --resolve      Show host names and names of services, as the key d does.
  --utc          Show times in UTC.
  -h, --help     Print this help and exit.

Keys: Enter opens a group or a socket, Esc goes back, / filters, g groups, s sorts, space pauses,
e shows events, p peers, d names, k sends a signal, w writes a file, ? lists the keys, q quits.

TARGETS and filters say what is shown first; / changes them. The options that say how to read the
system (--interval, --sweep, --cmdline, --proc, --source, --events, --events-udp, --max-user-...)
and those for remote agents (--token-file, --tls-..., --nats-creds, --since) are those of
sockagent: see sockagent --help all. It requires pip install 'sockagent[top]'.

Exit status: 0 ended by q, ^C or a signal, 1 failure, 2 wrong usage or no terminal.
"""
_READ_ONLY = "--read-only"
_SEE_HELP = "; see sockagent top --help"
_SOURCES = frozenset({
    "interval", "sweep", "cmdline", "proc", "source", "events", "events_udp",
    "max_user_descriptors", "max_user_holdings", "max_user_namespaces",
})  # fmt: skip
_CLIENT = frozenset({
    "token_file", "tls_cert", "tls_key", "tls_ca", "connect_token_file", "connect_tls_cert",
    "connect_tls_key", "connect_tls_ca", "nats_creds", "insecure", "since",
})  # fmt: skip
# Every record counts here: ``--event`` does not apply.
_FILTERS = frozenset(FILTERS) - {"event"}
_ACCEPTED = frozenset({
    "target", "connect", "read", "at", "resolve", "utc", *_SOURCES, *_CLIENT, *_FILTERS,
})  # fmt: skip
# Options whose names differ from those of their settings.
_NEGATIVE = {"header": "no-header", "page": "no-page"}
STDIN, STDOUT = 0, 1


def parse_top(words: Sequence[str]) -> dict[str, Any]:
    """Return the options of the words after ``top``. Raises CommandError, and SystemExit after
    printing the version."""
    offered = [f"--{name.replace('_', '-')}" for name in sorted(_ACCEPTED - {"target"})]
    parsed = parse(
        [word for word in words if word != _READ_ONLY], (*offered, _READ_ONLY), _SEE_HELP
    )
    # What is not given is False, unless giving it makes it False.
    given = {
        name: value for name, value in parsed.items() if value is not False or name in _NEGATIVE
    }
    for name in given:
        if name not in _ACCEPTED:
            option = _NEGATIVE.get(name, name).replace("_", "-")
            raise CommandError(f"top: --{option} does not apply{_SEE_HELP}")
    if given.get("read") == "-":
        raise CommandError("top: --read - does not apply: the keys come from standard input")
    is_local = not given.keys() & {"connect", "read"}
    return {**given, "top": True, "read_only": _READ_ONLY in words, "follow": is_local}


def require_screen() -> None:
    """Check that there is a terminal and what draws on it. Raises CommandError and
    RuntimeFailure."""
    for descriptor, name in ((STDIN, "input"), (STDOUT, "output")):
        if not _is_terminal(descriptor):
            raise CommandError(
                f"top: standard {name} is not a terminal; use sockagent --follow for a pipe or file"
            )
    if os.environ.get("TERM") == "dumb":
        raise CommandError(
            "top: the terminal cannot move its cursor (TERM=dumb); use sockagent --follow"
        )
    if find_spec("textual") is None:
        raise RuntimeFailure(
            "top needs an extra: pip install 'sockagent[top]'; sockagent --follow does without"
        )


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
