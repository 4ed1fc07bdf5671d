"""The views of a small web server, as they are kept in ``golden/``.

``python -m tests.publish.terminal.golden`` writes the files anew; look at what changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agent.publish.terminal.delimited import delimited
from agent.publish.terminal.eventlog import log_line
from agent.publish.terminal.options import Options
from agent.publish.terminal.rows import make_rows
from agent.publish.terminal.summary import summary
from agent.publish.terminal.table import table

from .machine import COVERAGE, HOST, NOW, events, on, web_server

FOLDER = Path(__file__).with_name("golden")
WIDTHS = (80, 120, 200)


def views(options: Options) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the lines of each view that depends on the terminal."""
    holdings = web_server()
    coverage = {HOST: COVERAGE}
    yield "summary", list(summary(holdings, coverage, options))
    yield "summary -a", list(summary(holdings, coverage, options, all_families=True))
    yield "table :8080", list(table(make_rows(on(8080, holdings), holdings), options))
    yield "table", list(table(make_rows(holdings), options))
    yield "log", [log_line(HOST, time, value, options) for time, value in events()]


def whole() -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the lines of each view that does not depend on the terminal."""
    holdings = web_server()
    options = Options(wide=True, now=NOW)
    yield "wide", list(table(make_rows(holdings, every_holder=True), options))
    yield "csv", list(delimited(holdings))
    yield "tsv", list(delimited(holdings, "\t"))


def files() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file."""
    for width in WIDTHS:
        for color in (False, True):
            for ascii in (False, True):
                options = Options(width=width, color=color, ascii=ascii, utc=True, now=NOW)
                name = f"{width}{'-color' if color else ''}{'-ascii' if ascii else ''}.txt"
                yield name, _text(views(options))
    yield "whole.txt", _text(whole())


def _text(views: Iterator[tuple[str, list[str]]]) -> str:
    return "\n".join(
        f"# {name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in views
    )


if __name__ == "__main__":
    for name, text in files():
        (FOLDER / name).write_text(text, encoding="utf-8")
