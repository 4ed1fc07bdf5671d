"""What is printed of a recording: its records, its event log, or one moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC
from functools import partial
from itertools import islice

from .config import ENDLESS_FORMATS, Config
from .errors import UsageError
from .log import log
from .moments import view_of
from .outputs import stream_log
from .publish.terminal.options import Options
from .publish.terminal.publisher import encode_lines
from .publish.terminal.stream_log import is_of_socket, is_record_match
from .publish.terminal.summary import counted
from .show import Moment
from .stream.decoder import Decoded
from .stream.recording import (
    STDIN,
    Recording,
    RecordReader,
    open_recording,
    state_at,
    time_span,
)
from .stream.times import Span, parse_time
from .text import safe_lines

# Records of a recording that are decoded in a thread at a time.
_BATCH = 512
# The same in bytes, of lines that may have many MiB each.
_BATCH_BYTES = 1024 * 1024


class RecordingOutput:
    """A recording: its records, its event log, or its state at one moment, in a format.

    The file is read in threads, so that a signal ends the command at once.
    """

    def __init__(self, path: str, config: Config, output: str, options: Options) -> None:
        self.matched = False
        self._path = path
        self._config = config
        self._output = output
        self._options = options

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises RuntimeFailure and UsageError."""
        view = self._config.view
        is_moment = view.at is not None or self._output not in ENDLESS_FORMATS
        if is_moment and "snapshot" not in self._config.filter.events:
            raise UsageError("event", "one moment has no changes; use -o log or -o ndjson")
        # To open a named pipe blocks until it is written to.
        opening = partial(open_recording, self._path, rereadable=view.at is not None)
        with await asyncio.to_thread(opening) as file:
            if is_moment:
                moment = await asyncio.to_thread(_moment_of, file, self._config)
                shown = view_of(moment, self._config, self._output, self._options)
                self.matched = shown.matched
                if shown.notice is not None:
                    log(shown.notice)
                for part in shown.chunks:
                    yield part
                return
            async for part in self._records(file):
                yield part

    async def _records(self, file: Recording) -> AsyncIterator[bytes]:
        """Yield the records, or the event log, of those that pass the filter."""
        quiet = self._config.view.quiet
        replay = _Replay(file, self._config, self._output, self._options)
        # What comes from a pipe is printed as it comes.
        count = 1 if self._path == STDIN else _BATCH
        while (part := await asyncio.to_thread(replay.next_part, count)) is not None:
            self.matched = replay.matched
            if quiet and self.matched:
                break
            if part and not quiet:
                yield part
        rest = replay.end()
        if rest and not quiet:
            yield rest
        _log_problems(file, replay.reader)


class _Replay:
    """Makes what is printed of the records of a file: their lines, or the event log. ``matched``: a
    record has passed the filter so far."""

    def __init__(self, file: Recording, config: Config, output: str, options: Options) -> None:
        self.matched = False
        self._lines = _LastLine(file)
        self.reader = RecordReader(self._lines)
        self._records = iter(self.reader)
        self._filter = config.filter
        self._log = stream_log(config, options) if output == "log" else None

    def next_part(self, count: int) -> bytes | None:
        """Return what is printed of the next ``count`` records, or of fewer long ones; None after
        the last one."""
        record, part, size = None, [], 0
        for record in islice(self._records, count):
            part.append(self._printed(record))
            size += len(self._lines.last)
            if size >= _BATCH_BYTES:
                break
        return None if record is None else b"".join(part)

    def end(self) -> bytes:
        """Return what is printed after the last record."""
        return b"" if self._log is None else encode_lines(list(self._log.end()))

    def _printed(self, record: Decoded) -> bytes:
        is_shown = is_record_match(self._filter, record)
        self.matched = self.matched or is_shown
        if self._log is not None:
            return encode_lines(list(self._log.of_record(record)))
        if not is_shown and (is_of_socket(record) or not self._filter.matches_host(record.host)):
            return b""
        return safe_lines(self._lines.last)


class _LastLine:
    """The lines of a file; ``last`` is the newest one."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.last = b""
        self._lines = lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.last = line
            yield line


def _moment_of(file: Recording, config: Config) -> Moment:
    """Return the state of a recording. Raises RuntimeFailure and UsageError."""
    view, reader = config.view, RecordReader(file)
    at = None
    if view.at is not None:
        at = parse_time(view.at, partial(_span_of, reader), UTC if view.utc else None)
    state = state_at(reader, at)
    _log_problems(file, reader)
    hosts = state.hosts()
    if not hosts:
        log("warning: the recording has no records")
    for host in hosts:
        if host.dropped:
            log(f"warning: {host.host}: lost {counted(len(host.dropped), 'range')} of changes")
    coverage = {one.host: one.coverage for one in hosts if one.coverage is not None}
    end = max((one.time for one in hosts), default=0.0) if at is None else at
    return Moment(list(state.holdings()), coverage, end)


def _span_of(reader: RecordReader) -> Span:
    span = time_span(reader)
    if span is None:
        raise UsageError("at", "the recording has no records")
    return span


def _log_problems(file: Recording, reader: RecordReader) -> None:
    for problem in (*reader.problems(), file.problem):
        if problem:
            log(f"warning: {problem}")
