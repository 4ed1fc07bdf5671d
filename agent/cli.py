"""The command line: arguments → config → the agent, and its exit status."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .errors import ConfigFailure, RuntimeFailure, UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, _ArgumentGroup

    from .config import Config
    from .kernel.procfs.forked_scan import ForkedScan

DONE, FAILED = 0, 1  # 2 is wrong usage: the parser ends with it.
# EX_CONFIG of sysexits.h: what systemd must not start again and again.
WRONG_CONFIG = 78
CLOSED = "standard output is closed"
NO_THREAD = "can't start new thread"  # As the interpreter says it.

_FILTER_HELP = {
    "pid": ("PID", "of these processes"),
    "comm": ("NAME", "of processes with this name"),
    "user": ("USER", "of this user, by name or id"),
    "proto": ("PROTO", "tcp, udp, udplite, raw, icmp, unix, netlink, packet, vsock, ..."),
    "family": ("FAMILY", "inet, inet6, unix, netlink, packet, ..."),
    "state": ("STATE", "LISTEN, ESTABLISHED, UNCONNECTED, ..."),
    "port": ("PORT", "a port at either end, or a range: 8000-8100"),
    "addr": ("ADDR", "an address at either end, or a CIDR: 10.0.0.0/8"),
    "unit": ("UNIT", "of this systemd unit"),
    "container": ("ID", "of the container with this id, or a beginning of it"),
    "netns": ("INODE", "of this network namespace"),
    "direction": ("DIR", "inbound, outbound, listen"),
    "event": ("EVENT", "which socket records: snapshot, open, update, close"),
}


_USER_LIMITS = {
    "descriptors": "read the processes of a user beyond this many descriptors late (100000)",
    "holdings": "the same beyond this many sockets held (50000)",
    "namespaces": "read a user's network namespaces beyond this many late (64)",
}


def build_parser() -> ArgumentParser:
    """The command line's grammar."""
    from .usage import Parser

    parser = Parser(
        prog="sockagent",
        description="Tells which process opened or closed which socket, as it happens. "
        "Prints one snapshot of all sockets as NDJSON, or follows them.",
        epilog="Values of one filter, comma-separated or repeated, are alternatives; different "
        "filters must all match. Text values may be shell globs: 'nginx*'.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on with what opens, changes and closes")
    add("--interval", type=float, metavar="SECONDS", help="seconds between polls (1.0)")
    add(
        "--sweep",
        type=float,
        metavar="SECONDS",
        help="seconds to read everything again in that may have changed (60)",
    )
    add("--stats", type=float, metavar="SECONDS", help="tell on stderr what the polls cost")
    add("--all", action="store_true", help="with sockets that no process holds: TIME_WAIT, orphans")
    add("--cmdline", action="store_true", help="with command lines, which may hold secrets")
    add("--proc", metavar="PATH", help="the procfs to read (/proc)")
    add("--source", choices=("auto", "procfs", "netlink"), help="where to read the tables (auto)")
    for name, what in _USER_LIMITS.items():
        add(f"--max-user-{name}", type=int, metavar="N", help=f"{what}; root is exempt")
    add("--schema", action="store_true", help="print the JSON Schema of the records and exit")
    add("--version", action="version", version=f"sockagent {__version__}")
    _add_serving(parser.add_argument_group("over the network"))
    filters = parser.add_argument_group("filters")
    for name, (metavar, text) in _FILTER_HELP.items():
        filters.add_argument(f"--{name}", action="append", metavar=metavar, help=text)
    return parser


def _add_serving(group: _ArgumentGroup) -> None:
    add = group.add_argument
    add("--listen", action="append", metavar="ADDR", help="HOST:PORT, [V6]:PORT or unix:PATH")
    add("--connect", action="append", metavar="URL", help="follow the agent at ws://HOST:PORT")
    add("--token-file", metavar="PATH", help="tokens, one a line, of which a client needs one")
    add("--filter-file", metavar="PATH", help="what clients may see at most: name=values lines")
    add("--tls-cert", metavar="PATH", help="our certificate, with those that lead to its CA")
    add("--tls-key", metavar="PATH", help="its key")
    add("--tls-ca", metavar="PATH", help="the CA that the other side's certificate is from")
    add("--allow-host", action="append", metavar="NAME", help="another name of this agent")
    add("--allow-origin", action="append", metavar="ORIGIN", help="a site whose pages may read")
    add("--insecure", action="store_true", default=None, help="let others in without token, TLS")
    add("--socket-mode", type=_octal, metavar="MODE", help="mode of a unix socket's file (600)")
    add("--max-clients", type=int, metavar="N", help="clients in all (1000)")
    add("--max-clients-per-address", type=int, metavar="N", help="of one address or user (250)")
    add("--max-handshakes", type=int, metavar="N", help="handshakes under way (200)")


def _octal(text: str) -> int:
    from argparse import ArgumentTypeError

    try:
        return int(text, 8)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no octal number") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status. Wrong usage raises SystemExit, as argparse does."""
    if arguments is None:
        arguments = sys.argv[1:]
    environment = dict(os.environ)
    try:
        return _run(_options(arguments))
    except UsageError as error:
        _reject_pending(environment)
        build_parser().error(f"argument --{error.argument}: {error}")
    except ConfigFailure as error:
        _reject_pending(environment)
        _complain(str(error))
        return WRONG_CONFIG
    except RuntimeFailure as error:
        _complain(str(error))
    except OSError as error:  # Descriptors, mostly: even to import takes them.
        _complain(f"it cannot work here: {error.strerror or error}")
    except MemoryError:
        _complain("it cannot work here: not enough memory")
    except ImportError as error:  # A part of it is missing, or cannot be loaded into memory.
        _complain(f"it cannot work here: {error}")
    except RuntimeError as error:
        if str(error) != NO_THREAD:
            raise
        _complain(f"it cannot work here: {error}")
    except KeyboardInterrupt:  # Before the agent listens to signals.
        return DONE
    return FAILED


def _reject_pending(environment: Mapping[str, str]) -> None:
    if "LISTEN_FDS" in environment:
        from .service.sd_notify import reject_pending

        reject_pending(environment)


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    if not arguments:  # The grammar need not be loaded.
        return {}
    given = vars(build_parser().parse_args(arguments))
    return {name: value for name, value in given.items() if value is not None}


def _run(options: dict[str, Any]) -> int:
    if options.pop("schema", False):
        from .stream.schema import schema_text

        _print(schema_text())
        return DONE
    if not sys.platform.startswith("linux"):
        raise RuntimeFailure(f"it reads Linux's procfs; this is {sys.platform}")
    if sys.stdout is None:
        raise RuntimeFailure(CLOSED)
    # What is wrong with the arguments is said before anything starts; without any, the walk
    # starts before what it does not need is loaded.
    config = _config(options) if options else None
    walk = None if config and config.polls else _start_walk(config)
    from .app import run

    run(config or _config({}), walk)
    return DONE


def _config(options: dict[str, Any]) -> Config:
    from .config import Config, Network
    from .stream.filters import FILTERS, Filter

    chosen = {name: options.pop(name) for name in FILTERS if name in options}
    names = [name for name in Network.__dataclass_fields__ if name in options]
    network = {name: options.pop(name) for name in names}
    if "listen" in network:
        from .address import parse_address
        from .service.credentials import find_credentials

        network["listen"] = map(parse_address, network["listen"])
        network.update(find_credentials(network.keys()))
    for name in ("listen", "connect", "allow_host", "allow_origin"):
        network[name] = tuple(network.get(name, ()))
    return Config(filter=Filter(chosen), network=Network(**network), **options)


def _start_walk(config: Config | None) -> ForkedScan | None:
    """Start the one-shot's walk."""
    from .kernel.procfs.forked_scan import ForkedScan
    from .kernel.procfs.mount import ProcFS
    from .kernel.procfs.scanner import ProcessScanner

    def walker() -> ProcessScanner:
        if config is None:
            return ProcessScanner(ProcFS())
        return ProcessScanner(ProcFS(config.proc), cmdline=config.cmdline)

    try:
        return ForkedScan(walker)
    except OSError:  # No process to be had: the agent walks by itself.
        return None


def _print(text: str) -> None:
    """Print a document. Raises RuntimeFailure when it cannot be written."""
    if sys.stdout is None:
        raise RuntimeFailure(CLOSED)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(DONE)
    except OSError as error:
        raise RuntimeFailure(f"standard output: {error.strerror}") from error


def _complain(message: str) -> None:
    """Say it on stderr, waiting a little for whoever reads that."""
    from .log import finish, log

    log(message)
    finish()


def entry() -> NoReturn:
    """The command ``sockagent``.

    The process ends without the interpreter's farewell: that would free every object one by one.
    """
    # Loading modules and building the first snapshot makes no garbage that is worth looking for;
    # following looks for it again.
    gc.disable()
    try:
        status = main()
    except SystemExit as end:  # argparse has said what there is to say.
        status = end.code if isinstance(end.code, int) else FAILED
        try:
            _print("")
        except RuntimeFailure as error:
            if status == DONE:
                _complain(str(error))
                status = FAILED
    os._exit(status)
