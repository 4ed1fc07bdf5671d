"""The views of a small web server, as they are kept in ``golden/``.

``python -m tests.publish.terminal.golden`` writes the files, and the screens of the README, anew;
look at what changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from agent.model import Coverage
from agent.publish.terminal.delimited import delimited
from agent.publish.terminal.eventlog import log_line
from agent.publish.terminal.options import Options
from agent.publish.terminal.rows import make_rows
from agent.publish.terminal.summary import summary
from agent.publish.terminal.table import table

from ..top.readme import readme_screen
from .machine import COVERAGE, GUNICORN, HOST, NGINX, NOW, events, on, web_server

FOLDER = Path(__file__).with_name("golden")
WIDTHS = (80, 120, 200)
README = Path(__file__).parents[3] / "README.md"
README_WIDTH = 110


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


def screens() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each screen in the README: a part of the server fits it."""
    shown = ("nginx", "gunicorn", "worker")
    holdings = [
        one
        for one in web_server()
        if one.holding.process is not None
        and one.holding.process.comm in shown
        and one.holding.process.pid not in (813, 815, 816)
        and 22 not in (one.holding.socket.local_port, one.holding.socket.remote_port)
    ]
    options = Options(width=README_WIDTH, utc=True, now=NOW)
    coverage = Coverage(len({one.holding.process for one in holdings}), 0, 1)
    lines = list(summary(holdings, {HOST: coverage}, options))
    yield "summary", "".join(f"{line}\n" for line in ("$ sudo sockagent", *lines))
    # One connection of each kind is enough to see what the table shows.
    rows = {
        (row.holding.process, row.holding.socket.state): row
        for row in make_rows(on(8080, holdings), holdings)
    }
    lines = list(table(list(rows.values()), options))
    yield "table", "".join(f"{line}\n" for line in ("$ sudo sockagent :8080", *lines))
    # Without the processes that only listen.
    holdings = [one for one in holdings if one.holding.process not in (NGINX, GUNICORN)]
    yield "top", "".join(f"{line}\n" for line in asyncio.run(readme_screen(holdings)))


def with_screens(document: str) -> str:
    """Return a document with its blocks after ``<!-- screen: NAME -->`` replaced."""
    for name, text in screens():
        begin = f"<!-- screen: {name} -->\n```\n"
        head, found, rest = document.partition(begin)
        assert found, f"there is no screen {name!r}"
        document = head + begin + text + "```\n" + rest.partition("```\n")[2]
    return document


def _text(views: Iterator[tuple[str, list[str]]]) -> str:
    return "\n".join(
        f"# {name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in views
    )


if __name__ == "__main__":
    for name, text in files():
        (FOLDER / name).write_text(text, encoding="utf-8")
    README.write_text(with_screens(README.read_text(encoding="utf-8")), encoding="utf-8")
