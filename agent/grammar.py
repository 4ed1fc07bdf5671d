"""The grammar of the command line: its options, the words of other tools, and the help."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .config import COLORS, ENCODINGS, FORMATS
from .errors import SEE_HELP, CommandError, with_advice
from .text import nearest

if TYPE_CHECKING:  # Imported inside functions, as the command line may be empty.
    from argparse import ArgumentParser, _ArgumentGroup

# What --help prints; --help all prints every option.
HELP = """\
Usage: sockagent [TARGET]... [OPTION]...
Show which process has, opened or closed which socket; in a pipe, as NDJSON.

  sockagent                     who listens, and who calls whom
  sockagent :8080               what has port 8080
  sockagent nginx port!=443     sockets of nginx, except those with port 443
  sockagent -f -t 10.0.0.0/8    TCP with this network, as it opens and closes
  kill $(sockagent -o pid :80)  end what listens on port 80, not its clients

TARGET: :PORT ADDR ADDR/BITS ADDR:PORT PID /PATH UNIT.service NAME FILTER=VALUE
-t TCP  -u UDP  -x unix  -w raw  -4 IPv4  -6 IPv6  -l listening  -a all sockets
-f follow  -q quiet  -o ndjson|json|summary|table|wide|log|csv|tsv|pid
Exit status with a TARGET or -q: 0 something matched, 1 nothing did,
2 wrong usage, 3 it cannot work here.
All options: sockagent --help all. Live: sockagent top, sockagent page
"""
_USER_LIMITS = {
    "descriptors": "Delay reading the largest processes of a user who has more than N descriptors "
    "(default 100000); root is exempt.",
    "holdings": "Delay reading the largest processes of a user who holds more than N sockets "
    "(default 50000); root is exempt.",
    "namespaces": "Delay reading the network namespaces of a user who is in more than N "
    "(default 64); root is exempt.",
}
_CONNECT_TLS = {
    "cert": "Certificate to present to the agents of --connect (PEM).",
    "key": "Key of that certificate (PEM).",
    "ca": "CA that signed the certificates of the agents of --connect (PEM).",
}
# Options without a value: the filter, its values, and what they select.
_SHORT = {
    "-t": ("proto", "tcp", "TCP sockets."),
    "-u": ("proto", "udp", "UDP sockets."),
    "-x": ("proto", "unix", "Unix sockets."),
    "-w": ("proto", "raw", "Raw sockets."),
    "-4": ("family", "inet", "IPv4 sockets."),
    "-6": ("family", "inet6", "IPv6 sockets."),
    "-l": ("direction", "listen,bound", "Listening sockets, and UDP without a peer."),
    "--external": ("scope", "external", "IP sockets without a loopback address at either end."),
}
_FILTERS = {
    "pid": ("PID", "Processes with this id."),
    "name": ("NAME", "Processes, programs, units or containers with this name, such as nginx."),
    "comm": ("NAME", "Processes with this name, for example nginx."),
    "user": ("USER", "Sockets of this user, by name or id."),
    "proto": ("PROTO", "tcp, udp, udplite, raw, icmp, unix, netlink, packet, vsock, ..."),
    "family": ("FAMILY", "inet, inet6, unix, netlink, packet, ..."),
    "state": ("STATE", "LISTEN, ESTABLISHED, UNCONNECTED, ..."),
    "port": ("PORT", "A port at either end, or a range such as 8000-8100."),
    "addr": ("ADDR", "An address at either end, or a network such as 10.0.0.0/8."),
    "endpoint": ("ADDR:PORT", "An address with its port at either end, such as 10.0.0.7:443."),
    "path": ("PATH", "Unix sockets with this path; @NAME is an abstract name."),
    "unit": ("UNIT", "Processes of this systemd unit, for example nginx.service."),
    "container": ("ID", "Processes of the container whose id begins with ID."),
    "netns": ("INODE", "Sockets in the network namespace with this inode."),
    "direction": ("DIR", "inbound, outbound, listen, or bound (UDP without a peer)."),
    "scope": ("SCOPE", "external (IP without loopback) or local."),
    "host": ("HOST", "Sockets of the hosts with this name."),
    "event": ("EVENT", "Socket records to report: snapshot, open, update, close (default all)."),
}


# Options of other tools, and formats that are typed as options: what to type here.
_FOREIGN = {
    "-e": "sockagent -o wide",
    "--watch": "sockagent --follow",
    **{f"--{name}": f"sockagent -o {name}" for name in FORMATS if name != "pid"},
}
_OPTION = re.compile(r"-[A-Za-z0-9]")
_NUMBER = re.compile(r"-[0-9]+")
_PORTS = re.compile(r":[0-9,:-]+$")
# Values of --sort and --at may begin with a hyphen, which argparse takes for an option.
_AGO = re.compile(r"-[0-9.]+[smhd]")
_HYPHENED = {"--sort": re.compile(r"-[a-z_]{2,}"), "--at": _AGO, "--since": _AGO}


def parse(
    arguments: Sequence[str], offered: Collection[str] = (), see_help: str = SEE_HELP
) -> dict[str, Any]:
    """Return the options that are given, and the targets as ``target``. Raises CommandError, and
    SystemExit after printing the help or the version.

    A mistyped option is said to mean one of ``offered``, if these are not all that there are; where
    none is near, ``see_help`` says where they are listed.
    """
    parser = build_parser()
    arguments = list(_joined(arguments))
    # argparse would take words after "--" for options where no target precedes them.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    targets, arguments = arguments[end + 1 :], arguments[:end]
    _refuse_foreign(arguments, set(parser._option_string_actions))  # noqa: SLF001 (no public list)
    given, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        known = offered or parser._option_string_actions  # noqa: SLF001
        raise CommandError(_unknown_option(unknown[0], known, see_help))
    given.target += targets
    return {name: value for name, value in vars(given).items() if value not in (None, [])}


def _joined(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments, ``--sort -x`` as ``--sort=-x``, and ``--at -5m`` likewise."""
    words = iter(arguments)
    for word in words:
        following = next(words, None) if word in _HYPHENED else None
        if following is None:
            yield word
        elif _HYPHENED[word].fullmatch(following):
            yield f"{word}={following}"
        else:
            yield from (word, following)


def _refuse_foreign(arguments: Sequence[str], known: Collection[str]) -> None:
    """Check the options of one letter, of which several may be in one word, and those of other
    tools. Raises CommandError, which says what to type instead."""
    for index, word in enumerate(arguments):
        name = word.partition("=")[0]
        if name in _FOREIGN:
            raise CommandError(f"there is no option {name}; type {_FOREIGN[name]}")
        if not _OPTION.match(word) or _NUMBER.fullmatch(word):
            continue
        for at, letter in enumerate(word[1:], 1):
            if letter == "o":  # The rest is its value.
                break
            if letter == "i":
                after = word[at + 1 :] or " ".join(arguments[index + 1 : index + 2])
                raise CommandError(_no_lsof(after, only_pids="t" in word[1:at]))
            option = f"-{letter}"
            if option in _FOREIGN:
                raise CommandError(f"there is no option {option}; type {_FOREIGN[option]}")
            if option not in known:
                raise CommandError(f"there is no option {option}{SEE_HELP}")


def _no_lsof(after: str, *, only_pids: bool) -> str:
    """Return what to type instead of ``-i`` of lsof(8), and of ``-ti``, which prints pids."""
    ports = _PORTS.search(after)
    command = "sockagent -o pid" if only_pids else "sockagent"
    return f"there is no option -i; type {command} {ports[0] if ports else ':8080'}"


def _unknown_option(word: str, known: Iterable[str], see_help: str) -> str:
    name = word.partition("=")[0]
    # The hyphens would make every option like every other.
    near = nearest(name.lstrip("-"), (one[2:] for one in known if one.startswith("--")))
    return f"there is no option {name}" + (f"; did you mean --{near}?" if near else see_help)


def build_parser() -> ArgumentParser:
    """Return the grammar of the command line."""
    from argparse import SUPPRESS, Action, ArgumentParser, Namespace

    class Help(Action):
        """Prints the short help, or with the word ``all`` that of every option, and exits."""

        def __call__(self, parser: ArgumentParser, _given: Namespace, word: object,
                     _option: str | None = None) -> NoReturn:  # fmt: skip
            text = parser.format_help() if word == "all" else HELP
            # Where it cannot be written, the flush of standard output reports it.
            with suppress(OSError):
                if sys.stdout is not None:
                    sys.stdout.write(text)
            raise SystemExit(0)

    class Parser(ArgumentParser):
        """A parser that raises CommandError: argparse blocks if nobody reads stderr."""

        def error(self, message: str) -> NoReturn:
            raise CommandError(with_advice(message))

    parser = Parser(
        prog="sockagent",
        description="Show which process opened or closed which socket: one snapshot of all "
        "sockets, or with --follow their changes. A terminal gets an overview, a table or a log, "
        "a pipe or file gets NDJSON.",
        epilog="Several values of one filter, separated by commas or in repeated options, are "
        "alternatives, as are targets of one kind; different filters must all match. Text values "
        "may be shell globs, for example 'nginx*'. Exit status: 0 done, 1 failure, 2 wrong usage, "
        "78 unusable file; with a TARGET or -q: 0 something matched, 1 nothing did, 2 wrong usage, "
        "3 it cannot work here. "
        "Other commands: sockagent page shows the sockets in a browser, sockagent top on a live "
        "screen, sockagent events sets up kernel events, sockagent fleet sets up a broker; see "
        "their --help.",
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument
    add("target", nargs="*", metavar="TARGET",
        help=":PORT, ADDRESS, ADDRESS/BITS, ADDRESS:PORT, PID, /PATH, @NAME, UNIT.service, NAME, "
        "FILTER=VALUES or FILTER!=VALUES.",
    )  # fmt: skip
    add("-h", "--help", action=Help, nargs="?", metavar="all", default=SUPPRESS,
        help="Print a short help and exit; --help all prints every option.")  # fmt: skip
    add("-f", "--follow", action="store_true", help="Keep running and report changes.")
    add("--interval", type=float, metavar="SECONDS", help="Seconds between polls (default 1.0).")
    add("-a", "--all", action="store_true",
        help="Include sockets that no process can hold, such as those in TIME_WAIT, and unix, "
        "netlink and packet sockets in the summary.",
    )  # fmt: skip
    add("--cmdline", action="store_true",
        help="Include command lines, which may contain secrets.")  # fmt: skip
    add("--sweep", type=float, metavar="SECONDS",
        help="Reread all descriptors of recently active processes every SECONDS (default 60).",
    )  # fmt: skip
    add("--stats", type=float, metavar="SECONDS",
        help="Log the cost of polls on stderr every SECONDS; requires --follow or --listen.",
    )  # fmt: skip
    add("--proc", metavar="PATH", help="Read the procfs mounted at PATH (default /proc).")
    add("--source", choices=("auto", "procfs", "netlink"),
        help="Where to read socket tables; auto is netlink where it works (default auto).",
    )  # fmt: skip
    add("--events", choices=("auto", "on", "off"),
        help="Whether to read the kernel's trace events, which show connections between two polls "
        "with their processes; auto is on where they can be read (default auto).",
    )  # fmt: skip
    add("--events-udp", action="store_true",
        help="Also read the trace events that show which process sends UDP datagrams; they cost "
        "time for each datagram. Requires --follow or --listen.",
    )  # fmt: skip
    for name, text in _USER_LIMITS.items():
        add(f"--max-user-{name}", type=int, metavar="N", help=text)
    add("--schema", action="store_true", help="Print the JSON Schema of the records and exit.")
    add("-V", "--version", action="version", version=f"sockagent {__version__}",
        help="Print the version and exit.")  # fmt: skip
    _add_output(parser.add_argument_group("output"))
    _add_network(parser.add_argument_group("network"))
    _add_filters(parser.add_argument_group("filters"))
    return parser


def _add_filters(group: _ArgumentGroup) -> None:
    for option, (name, value, text) in _SHORT.items():
        group.add_argument(option, action="append_const", dest=name, const=value, help=text)
    for option, text in (("-n", "Print numbers"), ("-p", "Print processes")):
        group.add_argument(option, action="store_const", const=None, help=f"{text}: the default.")
    for name, (metavar, text) in _FILTERS.items():
        group.add_argument(f"--{name}", action="append", metavar=metavar, help=text)


def _add_output(group: _ArgumentGroup) -> None:
    add = group.add_argument
    add("-o", "--output", type=_format, metavar="FORMAT",
        help=f"Print {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")  # fmt: skip
    add("--columns", type=_split_columns, metavar="NAMES",
        help="Print these columns, separated by commas: any fields of the records.")  # fmt: skip
    add("--sort", metavar="COLUMN", help="Sort by a column; -COLUMN: the largest first.")
    add("--no-header", action="store_false", dest="header", default=None,
        help="Print no line with the names of the columns.")  # fmt: skip
    add("--color", choices=COLORS, help="Whether to print colors (default auto).")
    add("--utc", action="store_true", default=None, help="Print times in UTC, not in local time.")
    add("--resolve", action="store_true", default=None,
        help="Print host names where they are found soon.")  # fmt: skip
    add("--services", action="store_true", default=None, help="Print the names of ports.")
    add("-q", "--quiet", action="store_true", default=None,
        help="Print no records; the exit status says whether a socket matched.")  # fmt: skip
    add("--timeout", type=float, metavar="SECONDS",
        help="End after so many seconds; requires --follow. With -q, end at the first match.",
    )  # fmt: skip
    add("--checkpoint", type=float, metavar="SECONDS",
        help="Repeat the snapshot in the stream after SECONDS if anything has changed; requires "
        "--follow or --connect.",
    )  # fmt: skip
    add("--read", metavar="FILE",
        help="Show a recording, such as the output of --follow or the directory of --record; - is "
        "standard input.")  # fmt: skip
    add("--at", metavar="TIME",
        help="Show the recording as it was at this time: 03:12:04, 2026-11-28T03:12:04, or "
        "-5m before its end.")  # fmt: skip


def _add_network(group: _ArgumentGroup) -> None:
    add = group.add_argument
    add("--listen", action="append", metavar="ADDR",
        help="Serve records over WebSocket at HOST:PORT, [V6]:PORT or unix:PATH.")  # fmt: skip
    add("--connect", action="append", metavar="URL",
        help="Print the records of the agent at URL, for example ws://HOST:PORT; with --listen, "
        "serve those of all URLs as one stream.",
    )  # fmt: skip
    add("--publish", metavar="URL",
        help="Publish the records at a NATS broker with JetStream, nats://HOST:PORT/PREFIX or "
        "tls://HOST:PORT/PREFIX; with --connect, those of the agent there.",
    )  # fmt: skip
    add("--publish-encoding", choices=ENCODINGS,
        help="How messages are compressed (default deflate).")  # fmt: skip
    add("--nats-creds", metavar="FILE",
        help="Credentials for the broker: a file that nsc wrote, or the password of the user in "
        "the URL, or a token.")  # fmt: skip
    add("--since", metavar="TIME",
        help="Where to begin in a fleet of --connect nats://HOST:PORT or tls://HOST:PORT: now, "
        "with the newest snapshot of each host (the default), start, or a time such as "
        "2026-11-28T03:12:04Z or -5m, with the snapshot before it.",
    )  # fmt: skip
    add("--record", metavar="DIR",
        help="Record a fleet in a directory, in a file for each hour, and print nothing; a "
        "later run goes on where this one ends.",
    )  # fmt: skip
    add("--keep", action="append", metavar="LIMIT",
        help="Remove files of the recording that are older than an age such as 14d or 48h, or "
        "the oldest of them beyond a size such as 50G; may be given for both.",
    )  # fmt: skip
    add("--token-file", metavar="PATH",
        help="File of tokens, one on each line; a client must send one of them.")  # fmt: skip
    add("--connect-token-file", metavar="PATH",
        help="Send the first token in this file to the agents of --connect; with --listen, where "
        "--token-file is for clients.",
    )  # fmt: skip
    for name, text in _CONNECT_TLS.items():
        add(f"--connect-tls-{name}", metavar="PATH", help=text)
    add("--filter-file", metavar="PATH",
        help="Limit what clients see to the filters in a file, such as proto=tcp.")  # fmt: skip
    add("--tls-cert", metavar="PATH", help="Certificate of this side, with its chain (PEM).")
    add("--tls-key", metavar="PATH", help="Key of the certificate (PEM).")
    add("--tls-ca", metavar="PATH",
        help="Require that this CA signed the certificate of the other side (PEM); with --listen "
        "and without --tls-cert, that of --connect.")  # fmt: skip
    add("--allow-host", action="append", metavar="NAME",
        help="Accept requests for this host name, for example that of a proxy.")  # fmt: skip
    add("--allow-origin", action="append", metavar="ORIGIN",
        help="Accept requests of web pages from this origin, for example https://dash.example.",
    )  # fmt: skip
    add("--no-page", action="store_false", dest="page", default=None,
        help="Do not serve the page for browsers.")  # fmt: skip
    add("--insecure", action="store_true", default=None,
        help="Allow remote clients without token or TLS.")  # fmt: skip
    add("--socket-mode", type=_octal, metavar="MODE",
        help="Mode of the file of a unix socket (default 600).")  # fmt: skip
    add("--max-clients", type=int, metavar="N", help="Accept up to N clients (default 1000).")
    add("--max-clients-per-address", type=int, metavar="N",
        help="Accept up to N clients of one address or local user (default 250).")  # fmt: skip
    add("--max-handshakes", type=int, metavar="N",
        help="Accept up to N connections that are not yet clients (default 200).")  # fmt: skip


def _format(text: str) -> str:
    from argparse import ArgumentTypeError

    if text in FORMATS:
        return text
    near = nearest(text, FORMATS)
    expected = f"did you mean {near}?" if near else f"expected one of {', '.join(FORMATS)}"
    raise ArgumentTypeError(f"there is no format {text!r}; {expected}")


def _split_columns(text: str) -> tuple[str, ...]:
    from argparse import ArgumentTypeError

    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ArgumentTypeError("empty name; expected for example comm,pid,local,remote")
    return names


def _octal(text: str) -> int:
    from argparse import ArgumentTypeError

    try:
        return int(text, 8)
    except ValueError:
        raise ArgumentTypeError(f"invalid mode {text!r}; expected for example 660") from None
