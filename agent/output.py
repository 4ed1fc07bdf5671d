"""What is printed where: the format, and what the terminal can show."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .config import ENDLESS_FORMATS, FORMATS, Config
from .errors import UsageError
from .kernel.users import is_privileged
from .publish.stdout import STDOUT

if TYPE_CHECKING:  # What goes into a pipe as NDJSON does not load the views.
    from .publish.terminal.options import Options

STDERR = 2
# The name of the variable with the format of terminals.
OUTPUT_VARIABLE = "SOCKAGENT_OUTPUT"
_FALLBACK_SIZE = (80, 24)


def choose_format(config: Config, environment: Mapping[str, str], *, is_terminal: bool) -> str:
    """Return the format to print. Raises UsageError if the environment names an unknown one.

    What is no terminal gets NDJSON, whatever the environment says.
    """
    view = config.view
    if view.output is not None:
        return view.output
    if not is_terminal:
        return "ndjson"
    is_stream = config.follow or bool(config.network.connect)
    wanted = environment.get(OUTPUT_VARIABLE)
    if wanted:
        if wanted not in FORMATS:
            raise UsageError(
                "output", f"{OUTPUT_VARIABLE}={wanted!r}: expected one of {', '.join(FORMATS)}"
            )
        if not is_stream or wanted in ENDLESS_FORMATS:
            return wanted
    if is_stream:
        return "log"
    if view.columns or view.sort is not None or view.targets:
        return "table"
    return "summary"


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return _is_terminal(STDOUT)


def errors_are_seen() -> bool:
    """Return whether standard error is a terminal, too: a person sees both together."""
    return is_terminal() and _is_terminal(STDERR)


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def view_options(config: Config, output: str, environment: Mapping[str, str]) -> Options:
    """Return the options of a view. Raises UsageError for unknown columns."""
    from .publish.terminal.options import Options

    view = config.view
    if view.columns or view.sort is not None:
        from .publish.terminal.columns import check_columns, check_sort

        check_columns(view.columns)
        if view.sort is not None:
            check_sort(view.sort)
    on_terminal = is_terminal()
    size = shutil.get_terminal_size(_FALLBACK_SIZE)
    return Options(
        width=size.columns if on_terminal else None,
        color=_has_color(view.color, environment, on_terminal=on_terminal),
        ascii=on_terminal and not _is_utf8(environment),
        utc=view.utc,
        header=view.header,
        columns=view.columns,
        sort=view.sort,
        wide=output == "wide",
        hosts=len(config.network.connect) > 1 or _has_fleet(config),
        root_can=view.read is None and not is_privileged(),
    )


def _has_fleet(config: Config) -> bool:
    """Return whether a URL is one of many hosts, or a recording is the directory of one."""
    if config.view.read is not None:
        return os.path.isdir(config.view.read)
    return any(url.startswith(("nats:", "tls:")) for url in config.network.connect)


def _has_color(wanted: str, environment: Mapping[str, str], *, on_terminal: bool) -> bool:
    """Return whether to colour (https://no-color.org)."""
    if wanted != "auto":
        return wanted == "always"
    allowed = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    return on_terminal and allowed


def _is_utf8(environment: Mapping[str, str]) -> bool:
    """Return whether the locale has UTF-8, as setlocale(3) chooses it."""
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = environment.get(name)
        if value:
            return "utf8" in value.lower().replace("-", "")
    return False
