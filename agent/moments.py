"""A moment as output: a snapshot of this machine in a format, and the answer whether a socket
passed the filter."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .config import Config
from .log import log
from .model import Coverage, Holding, HostHolding
from .output import errors_are_seen
from .preflight import warn
from .publish.terminal.options import Options
from .show import Moment, render, shown

if TYPE_CHECKING:
    from .publish.terminal.aggregate import Summarizer

_FOR_PEOPLE = ("summary", "table", "wide")


class Output(Protocol):
    """What is printed. ``matched``: a socket has passed the filter so far."""

    matched: bool

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class MomentView(NamedTuple):
    """A moment in a format. ``matched``: a socket passed the filter. ``notice`` is a sentence where
    nothing matches, None otherwise. ``is_shown``: it is a view for people and not left out."""

    matched: bool
    notice: str | None
    chunks: Iterator[bytes]
    is_shown: bool = False


def view_of(moment: Moment, config: Config, output: str, options: Options) -> MomentView:
    """Return a moment in a format; where nothing matches, the notice says what to type."""
    holdings = shown(moment, config.filter)
    matched, notice = bool(holdings), None
    if config.view.quiet:
        return MomentView(matched, None, iter(()))
    is_for_people = output in _FOR_PEOPLE
    if not holdings and config.view.targets:
        notice = _nothing(moment, config)
        if is_for_people:
            return MomentView(matched, notice, iter(()))
    chunks = render(output, moment, holdings, config, options)
    if output == "pid":  # It may leave out all of them: those that do not listen.
        numbers = list(chunks)
        matched, chunks = bool(numbers), iter(numbers)
        if holdings and not numbers:
            notice = "no process is known to listen there; -o table shows the sockets"
    return MomentView(matched, notice, chunks, is_for_people)


def _nothing(moment: Moment, config: Config) -> str:
    """Return a sentence where nothing matches."""
    if config.view.read is not None:
        return "no sockets match at that moment; -o log shows what opened and closed"
    from .stream.targets import hint  # Only here: loading it takes a millisecond.

    found = hint(config.filter, (one.holding for one in moment.holdings))
    return found or "no sockets match"


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
        summarizer = self._summarizer()
        async for part in self._parts:
            if isinstance(part, Coverage):
                coverage[host] = part
                continue
            added = [HostHolding(host, one, None) for one in part]
            holdings += added
            if summarizer is not None:
                summarizer.add(added)
        moment = Moment(holdings, coverage, time.time(), summarizer if holdings else None)
        view = view_of(moment, self._config, self._output, self._options)
        self.matched = view.matched
        if not (view.is_shown and self._says_gaps()):
            for one in coverage.values():
                warn(one)
        if view.notice is not None:
            log(view.notice)
        for chunk in view.chunks:
            yield chunk

    def _summarizer(self) -> "Summarizer | None":
        """Return what summarizes all holdings as they come: while this waits for the next part, it
        costs no time (``python -m bench views``). None if not all are summarized."""
        if self._output != "summary" or self._config.view.quiet:
            return None
        if not self._config.filter.passes_all:
            return None
        from .publish.terminal.aggregate import Summarizer

        return Summarizer(self._host, all_families=self._config.all)

    def _says_gaps(self) -> bool:
        """Return whether the last line of the view says what could not be read, so that a warning
        would say it twice to the same reader. A table says it on a terminal only."""
        return self._output == "summary" or errors_are_seen()
