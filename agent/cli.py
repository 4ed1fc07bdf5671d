"""The command line: its grammar, and the exit statuses of the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .errors import CommandError, ConfigFailure, RuntimeFailure, SockagentError, UsageError

if TYPE_CHECKING:  # Imports inside functions: a run loads what it uses.
    from argparse import ArgumentParser, _ArgumentGroup

    from .config import Config
    from .kernel.procfs.forked_scan import ForkedScan

DONE, FAILED, WRONG_USAGE = 0, 1, 2
# EX_CONFIG of sysexits.h: the unit tells systemd not to restart the service after it.
WRONG_CONFIG = 78
STDOUT_CLOSED = "standard output is closed"
SEE_HELP = "; see sockagent --help"
# The interpreter's message of a RuntimeError.
NO_THREAD = "can't start new thread"

_USER_LIMITS = {
    "descriptors": "Delay reading the largest processes of a user who has more than N descriptors "
    "(default 100000); root is exempt.",
    "holdings": "Delay reading the largest processes of a user who holds more than N sockets "
    "(default 50000); root is exempt.",
    "namespaces": "Delay reading the network namespaces of a user who is in more than N "
    "(default 64); root is exempt.",
}
_FILTERS = {
    "pid": ("PID", "Processes with this id."),
    "comm": ("NAME", "Processes with this name, for example nginx."),
    "user": ("USER", "Sockets of this user, by name or id."),
    "proto": ("PROTO", "tcp, udp, udplite, raw, icmp, unix, netlink, packet, vsock, ..."),
    "family": ("FAMILY", "inet, inet6, unix, netlink, packet, ..."),
    "state": ("STATE", "LISTEN, ESTABLISHED, UNCONNECTED, ..."),
    "port": ("PORT", "A port at either end, or a range such as 8000-8100."),
    "addr": ("ADDR", "An address at either end, or a network such as 10.0.0.0/8."),
    "unit": ("UNIT", "Processes of this systemd unit, for example nginx.service."),
    "container": ("ID", "Processes of the container whose id begins with ID."),
    "netns": ("INODE", "Sockets in the network namespace with this inode."),
    "direction": ("DIR", "inbound, outbound or listen."),
    "event": ("EVENT", "Socket records to report: snapshot, open, update, close (default all)."),
}


def build_parser() -> ArgumentParser:
    """Return the grammar of the command line."""
    from argparse import ArgumentParser

    class Parser(ArgumentParser):
        """A parser that reports errors with ``log``: argparse blocks if nobody reads stderr."""

        def error(self, message: str) -> NoReturn:
            raise SystemExit(_fail(message + SEE_HELP, WRONG_USAGE))

    parser = Parser(
        prog="sockagent",
        description="Report which process opened or closed which socket. Prints one snapshot of "
        "all sockets as NDJSON; with --follow, keeps running and reports changes.",
        epilog="Several values of one filter, separated by commas or in repeated options, are "
        "alternatives; different filters must all match. Text values may be shell globs, for "
        "example 'nginx*'. Exit status: 0 done, 1 failure, 2 wrong usage, 78 unusable file. "
        "Another command, sockagent events, sets up kernel events: see sockagent events --help.",
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument
    add("-h", "--help", action="help", help="Print this help and exit.")
    add("-f", "--follow", action="store_true", help="Keep running and report changes.")
    add("--interval", type=float, metavar="SECONDS", help="Seconds between polls (default 1.0).")
    add("--all", action="store_true",
        help="Include sockets that no process can hold, such as those in TIME_WAIT.")  # fmt: skip
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
    add("--version", action="version", version=f"sockagent {__version__}",
        help="Print the version and exit.")  # fmt: skip
    _add_network(parser.add_argument_group("network"))
    filters = parser.add_argument_group("filters")
    for name, (metavar, text) in _FILTERS.items():
        filters.add_argument(f"--{name}", action="append", metavar=metavar, help=text)
    return parser


def _add_network(group: _ArgumentGroup) -> None:
    add = group.add_argument
    add("--listen", action="append", metavar="ADDR",
        help="Serve records over WebSocket at HOST:PORT, [V6]:PORT or unix:PATH.")  # fmt: skip
    add("--connect", action="append", metavar="URL",
        help="Print the records of the agent at URL, for example ws://HOST:PORT.")  # fmt: skip
    add("--token-file", metavar="PATH",
        help="File of tokens, one on each line; a client must send one of them.")  # fmt: skip
    add("--filter-file", metavar="PATH",
        help="Limit what clients see to the filters in a file, such as proto=tcp.")  # fmt: skip
    add("--tls-cert", metavar="PATH", help="Certificate of this side, with its chain (PEM).")
    add("--tls-key", metavar="PATH", help="Key of the certificate (PEM).")
    add("--tls-ca", metavar="PATH",
        help="Require that this CA signed the certificate of the other side (PEM).")  # fmt: skip
    add("--allow-host", action="append", metavar="NAME",
        help="Accept requests for this host name, for example that of a proxy.")  # fmt: skip
    add("--allow-origin", action="append", metavar="ORIGIN",
        help="Accept requests of web pages from this origin, for example https://dash.example.",
    )  # fmt: skip
    add("--insecure", action="store_true", default=None,
        help="Allow remote clients without token or TLS.")  # fmt: skip
    add("--socket-mode", type=_octal, metavar="MODE",
        help="Mode of the file of a unix socket (default 600).")  # fmt: skip
    add("--max-clients", type=int, metavar="N", help="Accept up to N clients (default 1000).")
    add("--max-clients-per-address", type=int, metavar="N",
        help="Accept up to N clients of one address or local user (default 250).")  # fmt: skip
    add("--max-handshakes", type=int, metavar="N",
        help="Accept up to N connections that are not yet clients (default 200).")  # fmt: skip


def _octal(text: str) -> int:
    from argparse import ArgumentTypeError

    try:
        return int(text, 8)
    except ValueError:
        raise ArgumentTypeError(f"invalid mode {text!r}; expected for example 660") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    environment = dict(os.environ)
    try:
        if arguments[:1] == ["events"]:
            return _run_events(arguments[1:])
        return _run(_parse(arguments))
    except SystemExit as end:  # argparse has printed the help, the version or an error.
        return _flush(end.code if isinstance(end.code, int) else FAILED)
    except KeyboardInterrupt:
        return DONE
    except (SockagentError, OSError, MemoryError, ImportError, RuntimeError) as error:
        outcome = _outcome(error)
        if outcome is None:
            raise
        if isinstance(error, (UsageError, ConfigFailure)):
            _reject_pending(environment)
        return _fail(*outcome)


def _outcome(error: Exception) -> tuple[str, int] | None:
    """Return the message for an error and the exit status; None if it is an error of the code."""
    match error:
        case UsageError():
            return f"argument --{error.argument}: {error}{SEE_HELP}", WRONG_USAGE
        case CommandError() | ConfigFailure():
            return str(error), WRONG_USAGE if isinstance(error, CommandError) else WRONG_CONFIG
        case RuntimeFailure():
            return str(error), FAILED
        case RuntimeError() if str(error) != NO_THREAD:
            return None
        case OSError():  # No free descriptors, mostly: imports need them, too.
            reason = error.strerror or str(error)
        case MemoryError():
            reason = "not enough memory"
        case _:  # ImportError: a module is missing, or there is no memory to load it.
            reason = str(error)
    return f"cannot run: {reason}", FAILED


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options that are given. Raises SystemExit, as argparse does."""
    if not arguments:  # argparse need not be loaded.
        return {}
    given = vars(build_parser().parse_args(arguments))
    return {name: value for name, value in given.items() if value is not None}


def _run_events(words: Sequence[str]) -> int:
    """Run ``sockagent events``, without the parser of the options."""
    _require_linux()
    from .events_command import run_events

    _print(run_events(words))
    return DONE


def _require_linux() -> None:
    if not sys.platform.startswith("linux"):
        raise RuntimeFailure(f"requires Linux; this is {sys.platform}")


def _run(options: dict[str, Any]) -> int:
    if options.pop("schema", False):
        from .stream.schema import schema_text

        _print(schema_text())
        return DONE
    _require_linux()
    if sys.stdout is None:
        raise RuntimeFailure(STDOUT_CLOSED)
    # Arguments are checked before anything starts; without arguments the scan starts first, and
    # reads processes while modules are loaded.
    config = _config(options) if options else None
    scan = None if config and config.is_continuous else _start_scan(config)
    from .app import run

    run(config or _config({}), scan)
    return DONE


def _config(options: dict[str, Any]) -> Config:
    """Return the settings that the options make. Raises UsageError and ConfigFailure."""
    from .config import Config, Network
    from .stream.filters import FILTERS, Filter

    filters = {name: options.pop(name) for name in FILTERS if name in options}
    names = [name for name in Network.__dataclass_fields__ if name in options]
    network = {name: options.pop(name) for name in names}
    if "listen" in network:
        from .address import parse_address
        from .service.credentials import find_credentials

        network["listen"] = map(parse_address, network["listen"])
        network.update(find_credentials(network.keys()))
    for name in ("listen", "connect", "allow_host", "allow_origin"):
        network[name] = tuple(network.get(name, ()))
    return Config(filter=Filter(filters), network=Network(**network), **options)


def _start_scan(config: Config | None) -> ForkedScan | None:
    """Start to scan processes for a one-shot snapshot, in another process; None where it cannot be
    created: the agent then scans by itself."""
    from .kernel.procfs.forked_scan import ForkedScan
    from .kernel.procfs.mount import ProcFS
    from .kernel.procfs.scanner import ProcessScanner

    def scanner() -> ProcessScanner:
        if config is None:
            return ProcessScanner(ProcFS())
        return ProcessScanner(ProcFS(config.proc), cmdline=config.cmdline)

    try:
        return ForkedScan(scanner)
    except OSError:
        return None


def _reject_pending(environment: Mapping[str, str]) -> None:
    """Close connections that wait on sockets passed by systemd, which would restart the agent for
    each of them. ``environment`` is that of the start."""
    if "LISTEN_FDS" in environment:
        from .service.sd_notify import reject_pending

        reject_pending(environment)


def _print(text: str) -> None:
    """Print to stdout. Raises RuntimeFailure. If the reader has left, the process ends."""
    if sys.stdout is None:
        raise RuntimeFailure(STDOUT_CLOSED)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(DONE)
    except OSError as error:
        raise RuntimeFailure(f"cannot write to standard output: {error.strerror}") from error


def _flush(status: int) -> int:
    """Write what argparse printed; return the exit status."""
    try:
        _print("")
    except RuntimeFailure as error:
        if status == DONE:
            return _fail(str(error))
    return status


def _fail(message: str, status: int = FAILED) -> int:
    """Log a message, and wait a moment until it is read; return the exit status."""
    from .log import finish, log

    log(message)
    finish()
    return status
