"""The command: from its arguments to settings, and its exit statuses."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import (
    CommandError,
    ConfigFailure,
    RuntimeFailure,
    SockagentError,
    TargetError,
    UsageError,
    with_advice,
)

if TYPE_CHECKING:  # Imports inside functions: a run loads what it uses.
    from .config import Config, View
    from .kernel.procfs.forked_scan import ForkedScan

DONE, FAILED, WRONG_USAGE = 0, 1, 2
# With a target or --quiet the status is that of grep(1), and failures have their own.
NOTHING_MATCHED, CANNOT_WORK = 1, 3
# EX_CONFIG of sysexits.h: the unit tells systemd not to restart the service after it.
WRONG_CONFIG = 78
STDOUT_CLOSED = "standard output is closed"
# The interpreter's message of a RuntimeError.
NO_THREAD = "can't start new thread"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    environment = dict(os.environ)
    failed = FAILED
    try:
        if arguments[:1] == ["help"]:
            arguments = _asking_for_help(arguments[1:])
        if arguments[:1] == ["events"]:
            return _run_events(arguments[1:])
        if arguments[:1] == ["fleet"]:
            return _run_fleet(arguments[1:])
        if arguments[:1] == ["page"]:
            return _run_page(arguments[1:])
        if arguments[:1] == ["top"]:
            return _run_top(arguments[1:])
        options = _parse(arguments)
        if options.keys() & {"target", "quiet"}:
            failed = CANNOT_WORK
        return _run(options)
    except SystemExit as end:  # argparse has printed the help or the version.
        return _flush(end.code if isinstance(end.code, int) else FAILED)
    except KeyboardInterrupt:
        return DONE
    except (SockagentError, OSError, MemoryError, ImportError, RuntimeError) as error:
        outcome = _outcome(error)
        if outcome is None:
            raise
        if isinstance(error, (UsageError, ConfigFailure)):
            _reject_pending(environment)
        message, status = outcome
        return _fail(message, failed if status == FAILED else status)


def _asking_for_help(words: Sequence[str]) -> list[str]:
    """Return the arguments that ``help`` and the words after it mean."""
    is_command = words[:1] in (["events"], ["fleet"], ["top"])
    return [words[0], "--help"] if is_command else ["--help", *words]


def _outcome(error: Exception) -> tuple[str, int] | None:
    """Return the message for an error and the exit status; None if it is an error of the code."""
    match error:
        case TargetError():
            return with_advice(f"{error.argument!r}: {error}"), WRONG_USAGE
        case UsageError():
            return with_advice(f"argument --{error.argument}: {error}"), WRONG_USAGE
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
    """Return the options that are given. Raises CommandError, and SystemExit after the help."""
    if not arguments:  # The grammar need not be loaded.
        return {}
    from .grammar import parse

    return parse(arguments)


def _run_events(words: Sequence[str]) -> int:
    """Run ``sockagent events``, without the parser of the options."""
    _require_linux()
    from .events_command import run_events

    _print(run_events(words))
    return DONE


def _run_fleet(words: Sequence[str]) -> int:
    """Run ``sockagent fleet``."""
    from .fleet_command import run_fleet
    from .log import capture_libraries, finish

    capture_libraries()
    _print(run_fleet(words))
    finish()
    return DONE


def _run_page(words: Sequence[str]) -> int:
    """Run ``sockagent page``: the agent with a page for the user who runs it."""
    from .page_command import ADDRESS, HELP, is_help, local_page, parse_page

    if is_help(words):
        _print(HELP)
        return DONE
    _require_linux()
    options, opens = parse_page(words)
    with local_page(os.environ, opens=opens) as page:
        config = _config({**options, "listen": [ADDRESS], "local_page": page})
        from .app import run

        run(config)
    return DONE


def _run_top(words: Sequence[str]) -> int:
    """Run ``sockagent top``: a screen of this machine, of remote agents or of a recording."""
    from .page_command import is_help
    from .top_command import HELP, parse_top, require_screen

    if is_help(words):
        _print(HELP)
        return DONE
    _require_linux()
    config = _config(parse_top(words))
    require_screen()
    from .app import run

    run(config)
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
    reads_nothing = config is not None and (config.is_continuous or config.view.read is not None)
    scan = None if reads_nothing else _start_scan(config)
    from .app import run

    config = config or _config({})
    matched = run(config, scan)
    return NOTHING_MATCHED if config.view.answers and not matched else DONE


def _config(options: dict[str, Any]) -> Config:
    """Return the settings that the options make. Raises UsageError and ConfigFailure."""
    from .config import Config, Network
    from .fleet_settings import FleetSettings, parse_keep, parse_since
    from .stream.filters import FILTERS, Filter

    targets = options.pop("target", ())
    filters = {name: options.pop(name) for name in FILTERS if name in options}
    if targets:
        from .services import with_numbers
        from .stream.targets import parse_targets

        for name, values in parse_targets(with_numbers(targets)).items():
            filters[name] = [*filters.get(name, ()), *values]
    names = [name for name in Network.__dataclass_fields__ if name in options]
    network = {name: options.pop(name) for name in names}
    has_answer = bool(targets) and "local_page" not in network and "top" not in options
    view = _view(options, has_filter=bool(filters), has_target=has_answer)
    if "listen" in network:
        from .address import parse_address
        from .service.credentials import find_credentials

        network["listen"] = map(parse_address, network["listen"])
        if "local_page" not in network:
            network.update(find_credentials(network.keys()))
    fleet = FleetSettings(
        since=parse_since(options.pop("since", "now"), time.time()),
        record=options.pop("record", None),
        keep=parse_keep(options.pop("keep", [])),
    )
    for name in ("listen", "connect", "allow_host", "allow_origin"):
        network[name] = tuple(network.get(name, ()))
    return Config(
        filter=Filter(filters), network=Network(**network), view=view, fleet=fleet, **options
    )


def _view(options: dict[str, Any], *, has_filter: bool, has_target: bool) -> View:
    """Take the options of the output. Raises UsageError."""
    from .config import View

    view = {name: options.pop(name) for name in View.__dataclass_fields__ if name in options}
    if not (options.get("follow") or "output" in view) and view.keys() & {"columns", "sort"}:
        view["output"] = "table"
    return View(targets=has_filter, answers=has_target or "quiet" in view, **view)


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
