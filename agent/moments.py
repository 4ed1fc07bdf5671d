"""A moment as output: a snapshot of this machine in a format, and the answer whether a socket
passed the filter."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol

from .config import Config
from .log import log
from .model import Coverage, Holding
from .preflight import warn
from .publish.terminal.options import Options
from .show import Moment, render, shown
from .stream.state import HostHolding
from .targets import hint

_FOR_PEOPLE = ("summary", "table", "wide")


class Output(Protocol):
    """What is printed. ``matched``: a socket has passed the filter so far."""

    matched: bool

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class MomentOutput:
    """A moment in a format; where nothing matches, a sentence on stderr says what to type."""

    def __init__(self, moment: Moment, config: Config, output: str, options: Options) -> None:
        holdings = shown(moment, config.filter)
        self._chunks: Iterator[bytes] = iter(())
        self.matched = bool(holdings)
        if config.view.quiet:
            return
        if not holdings and config.view.targets:
            if config.view.read is not None:
                log("no sockets match at that moment; -o log shows what opened and closed")
            else:
                found = hint(config.filter, (one.holding for one in moment.holdings))
                log(found or "no sockets match")
            if output in _FOR_PEOPLE:
                return
        chunks = render(output, moment, holdings, config, options)
        if output == "pid":  # It may leave out all of them: those that do not listen.
            numbers = list(chunks)
            self.matched = bool(numbers)
            if holdings and not numbers:
                log("no process is known to listen there; -o table shows the sockets")
            chunks = iter(numbers)
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks


class SnapshotOutput:
    """A snapshot of this machine in a format. ``parts`` are those of ``take_snapshot``."""

    def __init__(
        self,
        parts: AsyncIterator[Iterable[Holding] | Coverage],
        host: str,
        config: Config,
        output: str,
        options: Options,
    ) -> None:
        self.matched = False
        self._parts = parts
        self._host = host
        self._config = config
        self._output = output
        self._options = options

    async def __aiter__(self) -> AsyncIterator[bytes]:
        host, coverage = self._host, {}
        holdings: list[HostHolding] = []
        async for part in self._parts:
            if isinstance(part, Coverage):
                if self._output != "summary":  # Its last line says what could not be read.
                    warn(part)
                coverage[host] = part
            else:
                holdings += [HostHolding(host, one, None) for one in part]
        moment = Moment(holdings, coverage, time.time())
        printed = MomentOutput(moment, self._config, self._output, self._options)
        self.matched = printed.matched
        for chunk in printed:
            yield chunk
