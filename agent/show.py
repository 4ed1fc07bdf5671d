"""One moment in a format: a snapshot of this machine, or of a recording.

Imports inside functions: a view loads what it uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from .config import Config
from .model import Coverage, HostHolding
from .publish.terminal.options import Options
from .stream.encoder import AgentInfo, Encoder, snapshot_chunks
from .stream.filters import Filter

if TYPE_CHECKING:
    from .publish.terminal.aggregate import Summarizer
    from .publish.terminal.rows import Row

# How long names of addresses are waited for, in seconds.
RESOLVE_SECONDS = 0.5
_LINES = 512  # Written at a time.
_CRLF = "\r\n"  # RFC 4180.


class Moment(NamedTuple):
    """All holdings of some hosts at one moment, and the coverage of each host where it is known.

    ``time`` is in seconds since the Unix epoch. ``summarizer`` has all holdings of the only host
    where the summary was begun while they came, and all of them are shown; otherwise None.
    """

    holdings: Sequence[HostHolding]
    coverage: Mapping[str, Coverage]
    time: float
    summarizer: Summarizer | None = None


def shown(moment: Moment, chosen: Filter) -> Sequence[HostHolding]:
    """Return the holdings that pass a filter."""
    if chosen.passes_all:
        return moment.holdings
    hosts = {one.host for one in moment.holdings}
    matches = {host: chosen.of_host(host).matches for host in hosts}
    return [one for one in moment.holdings if matches[one.host](one.holding)]


def render(
    output: str, moment: Moment, holdings: Sequence[HostHolding], config: Config, options: Options
) -> Iterator[bytes]:
    """Yield a moment in a format, in parts. ``holdings`` are those to show."""
    if output == "ndjson":
        return _ndjson(moment, holdings, config)
    if output == "json":
        return _json(moment, holdings, config)
    if output in ("csv", "tsv"):
        return _csv(output, moment, holdings, config, options)
    return _parts(_lines(output, moment, holdings, config, options), "\n")


def _lines(
    output: str, moment: Moment, holdings: Sequence[HostHolding], config: Config, options: Options
) -> Iterator[str]:
    if output == "pid":
        from .publish.terminal.pids import pids

        names = {name for name, _values in config.filter.values}
        return pids(holdings, listening_only=bool(names & {"port", "endpoint"}))
    options = _completed(options, moment, holdings, config)
    if output == "summary":
        from .publish.terminal.summary import summary, summary_lines

        if moment.summarizer is not None:
            return summary_lines([moment.summarizer.summary()], moment.coverage, options)
        return summary(holdings, moment.coverage, options, all_families=config.all)
    from .publish.terminal.rows import make_rows
    from .publish.terminal.table import table

    rows = make_rows(holdings, moment.holdings, every_holder=output == "wide")
    lines = table(rows, options)
    if options.width is None:  # In a pipe each line is a row.
        return lines
    from .publish.terminal.summary import gap_lines

    return chain(lines, gap_lines(moment.coverage, options))


def _completed(
    options: Options, moment: Moment, holdings: Sequence[HostHolding], config: Config
) -> Options:
    """Return the options with the names that are wanted, and the time where sockets may have an
    age: in a recording. One snapshot of this machine does not show when a socket was opened."""
    if config.view.read is not None:
        options = replace(options, now=moment.time)
    if config.view.services:
        from .services import read_services

        options = replace(options, services=read_services())
    if config.view.resolve:
        from .publish.terminal.names import Resolver

        resolver = Resolver()
        resolver.request(one.holding for one in holdings)
        resolver.wait(RESOLVE_SECONDS)
        resolver.close()
        options = replace(options, names=dict(resolver.names))
    return options


def _csv(
    output: str, moment: Moment, holdings: Sequence[HostHolding], config: Config, options: Options
) -> Iterator[bytes]:
    from .publish.terminal.delimited import FIELDS, delimited

    view = config.view
    separator, end = ("\t", "\n") if output == "tsv" else (",", _CRLF)
    fields = tuple(name.lower() for name in view.columns) or FIELDS
    others = [name for name in fields if name not in FIELDS]
    more: dict[str, list[str]] = {}
    if others or view.sort is not None:
        from .publish.terminal.columns import sort_rows
        from .publish.terminal.rows import make_rows

        rows = make_rows(holdings, moment.holdings, every_holder=True)
        if view.sort is not None:
            rows = sort_rows(rows, view.sort)
        holdings = [HostHolding(row.host, row.holding, row.since) for row in rows]
        if others:
            options = _completed(options, moment, holdings, config)
            more = {name: _texts(name, rows, options) for name in others}
    lines = delimited(holdings, separator, fields=fields, header=view.header, more=more)
    return _parts(lines, end)


def _texts(name: str, rows: Sequence[Row], options: Options) -> list[str]:
    """Return the texts of a column of the table; unknown values are empty, as in other fields."""
    from .publish.terminal.columns import COLUMNS

    column = COLUMNS[name]
    return [
        "" if column.value(row) is None else text
        for row, text in zip(rows, column.cells(rows, options), strict=True)
    ]


def _ndjson(moment: Moment, holdings: Iterable[HostHolding], config: Config) -> Iterator[bytes]:
    """Yield the records of a one-shot snapshot of each host."""
    for host, of_host in groupby(holdings, attrgetter("host")):
        agent = AgentInfo(host, None, "", 0.0)
        encoder = Encoder(agent, is_kernels=config.view.read is None)
        yield from snapshot_chunks(encoder, (one.holding for one in of_host), Filter(), moment.time)


def _json(moment: Moment, holdings: Iterable[HostHolding], config: Config) -> Iterator[bytes]:
    """Yield the records as one array."""
    separator = b"[\n"
    for chunk in _ndjson(moment, holdings, config):
        yield separator + chunk[:-1].replace(b"\n", b",\n")
        separator = b",\n"
    yield b"\n]\n" if separator == b",\n" else b"[]\n"


def _parts(lines: Iterable[str], end: str) -> Iterator[bytes]:
    part: list[str] = []
    for line in lines:
        part += (line, end)
        if len(part) >= 2 * _LINES:
            yield "".join(part).encode("utf-8", "backslashreplace")
            part = []
    if part:
        yield "".join(part).encode("utf-8", "backslashreplace")
