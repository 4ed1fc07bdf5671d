"""What is printed of records that an agent wrote: those of remote agents, and recordings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from datetime import UTC
from functools import partial
from itertools import islice

from .config import ENDLESS_FORMATS, Config
from .errors import UsageError
from .log import log
from .moments import MomentOutput
from .publish.terminal.names import Resolver, read_services
from .publish.terminal.options import Options
from .publish.terminal.publisher import encode_lines
from .publish.terminal.stream_log import FOLLOWING, StreamLog, is_of_socket, is_record_match
from .publish.terminal.summary import counted
from .show import Moment
from .stream.decoder import Decoded, decode
from .stream.fields import DecodeError
from .stream.recording import (
    STDIN,
    RecordingFile,
    RecordReader,
    open_recording,
    state_at,
    time_span,
)
from .stream.times import parse_time

# Records of a recording that are decoded in a thread at a time.
_BATCH = 512


def stream_log(config: Config, options: Options, following: str = "") -> StreamLog:
    """Return the event log with the names that are wanted."""
    resolver = None
    if config.view.resolve:
        resolver = Resolver()
        options = replace(options, names=resolver.names)
    if config.view.services:
        options = replace(options, services=read_services())
    return StreamLog(config.filter, options, following, resolver)


class RemoteOutput:
    """The records of remote agents: NDJSON as they come, or the event log."""

    def __init__(
        self, chunks: AsyncIterator[bytes], config: Config, output: str, options: Options
    ) -> None:
        self.matched = False
        self._chunks = chunks
        self._config = config
        self._log = stream_log(config, options, FOLLOWING) if output == "log" else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        quiet, chosen = self._config.view.quiet, self._config.filter
        async for chunk in self._chunks:
            lines: list[str] = []
            for record in _records(chunk):
                self.matched = self.matched or is_record_match(chosen, record)
                if self._log is not None:
                    lines += self._log.of_record(record)
            if quiet:
                if self.matched:
                    return
            elif self._log is None:
                yield chunk
            elif lines:
                yield encode_lines(lines)


def _records(chunk: bytes) -> Iterator[Decoded]:
    """Yield the records of a chunk; those that this version cannot read are left out."""
    for line in chunk.splitlines():
        try:
            yield decode(line)
        except DecodeError as error:
            log(f"warning: a record of a remote agent is left out: {error}")


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
        with open_recording(self._path, rereadable=view.at is not None) as file:
            if is_moment:
                moment = await asyncio.to_thread(_moment_of, file, self._config)
                printed = MomentOutput(moment, self._config, self._output, self._options)
                self.matched = printed.matched
                for chunk in printed:
                    yield chunk
                return
            async for chunk in self._records(file):
                yield chunk

    async def _records(self, file: RecordingFile) -> AsyncIterator[bytes]:
        """Yield the records, or the event log, of those that pass the filter."""
        lines = _LastLine(file)
        reader = RecordReader(lines)
        records = iter(reader)
        chosen, view = self._config.filter, self._config.view
        log_lines = stream_log(self._config, self._options) if self._output == "log" else None
        # What comes from a pipe is printed as it comes.
        batch = 1 if self._path == STDIN else _BATCH

        def next_part() -> tuple[bool, bytes]:
            """Return whether there was a record, and what to print."""
            printed: list[bytes] = []
            record = None
            for record in islice(records, batch):
                is_shown = is_record_match(chosen, record)
                self.matched = self.matched or is_shown
                if log_lines is not None:
                    printed.append(encode_lines(list(log_lines.of_record(record))))
                elif is_shown or (not is_of_socket(record) and chosen.matches_host(record.host)):
                    printed.append(lines.last)
            return record is not None, b"".join(printed)

        while True:
            more, part = await asyncio.to_thread(next_part)
            if part and not view.quiet:
                yield part
            if not more or (view.quiet and self.matched):
                break
        if log_lines is not None and not view.quiet:
            yield encode_lines(list(log_lines.end()))
        _log_problems(file, reader)


class _LastLine:
    """The lines of a file; ``last`` is the newest one."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.last = b""
        self._lines = lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.last = line
            yield line


def _moment_of(file: RecordingFile, config: Config) -> Moment:
    """Return the state of a recording. Raises RuntimeFailure and UsageError."""
    view, reader = config.view, RecordReader(file)
    at = None
    if view.at is not None:
        at = parse_time(view.at, partial(_end_of, reader), UTC if view.utc else None)
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


def _end_of(reader: RecordReader) -> float:
    span = time_span(reader)
    if span is None:
        raise UsageError("at", "the recording has no records")
    return span.last


def _log_problems(file: RecordingFile, reader: RecordReader) -> None:
    for problem in (*reader.problems(), file.problem):
        if problem:
            log(f"warning: {problem}")
