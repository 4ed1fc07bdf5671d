"""Recordings: files of records, of one or several hosts, which may be damaged or cut off."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import sys
import tempfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from io import BufferedIOBase
from types import TracebackType
from typing import NamedTuple, Self

from ..errors import RuntimeFailure, UsageError
from .decoder import Decoded, decode
from .fields import DecodeError
from .state import State
from .times import Span, timestamp

Decompress = Callable[[BufferedIOBase], BufferedIOBase]

STDIN = "-"
# A longer line is no record: a record with a command line may have some MiB.
MAX_LINE_BYTES = 16 * 1024 * 1024
# The module with zstd: in the standard library since Python 3.14, before in the extra "zstd".
_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


# The files of a directory that --record writes, which may have been compressed since.
_RECORDED = re.compile(r".+\.ndjson(\.gz|\.zst)?", re.DOTALL)


def open_recording(path: str, *, rereadable: bool = False) -> Recording:
    """Open a recording: a path, of which the suffixes .gz and .zst are decompressed, ``-`` for
    stdin, or a directory whose files are read in the order of their names. Raises RuntimeFailure.

    ``rereadable``: it will be read more than once; what cannot, such as a pipe, is copied.
    """
    if path != STDIN and _is_directory(path):
        return RecordingFiles(path)
    return _open_file(path, rereadable=rereadable)


def _is_directory(path: str) -> bool:
    try:
        return os.path.isdir(path)
    except ValueError:  # It has a NUL.
        return False


def _open_file(path: str, *, rereadable: bool) -> RecordingFile:
    name = "stdin" if path == STDIN else path
    decompress, errors = _decompressor(path)
    try:
        raw = _opened(path, rereadable=rereadable)
    except ValueError:
        raise RuntimeFailure(f"{name!r} is not a path") from None
    except OSError as error:
        raise RuntimeFailure(f"{name}: {error.strerror}") from error
    return RecordingFile(name, raw, decompress, errors)


def _opened(path: str, *, rereadable: bool) -> BufferedIOBase:
    """Open a file, or a temporary file with its content. Raises OSError and ValueError."""
    raw = open(0 if path == STDIN else path, "rb", closefd=path != STDIN)
    if not rereadable or raw.seekable():
        return raw
    copy = tempfile.TemporaryFile()
    with raw:
        shutil.copyfileobj(raw, copy)
    copy.seek(0)
    return copy


def _decompressor(path: str) -> tuple[Decompress, tuple[type[Exception], ...]]:
    """Return what decompresses a file, by its suffix, and the errors that damaged data raises."""
    if path.endswith(".gz"):
        return lambda raw: gzip.GzipFile(fileobj=raw), (gzip.BadGzipFile, zlib.error)
    if path.endswith(".zst"):
        try:
            zstd = import_module(_ZSTD)
        except ModuleNotFoundError:
            raise RuntimeFailure(
                f"{path}: reading .zst needs an extra; pip install 'sockagent[zstd]'"
            ) from None
        return zstd.ZstdFile, (zstd.ZstdError,)
    return lambda raw: raw, ()


class Recording(ABC):
    """An open recording. Each iteration gives its lines from the beginning on.

    Compressed data is read as far as possible: ``problem`` then is a sentence that says why not
    further, None if all was read.
    """

    problem: str | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines. Raises RuntimeFailure."""

    def close(self) -> None:  # noqa: B027 (a directory has nothing to close)
        """Close the file; stdin stays open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


class RecordingFile(Recording):
    """One file, or stdin."""

    def __init__(
        self,
        name: str,
        raw: BufferedIOBase,
        decompress: Decompress,
        errors: tuple[type[Exception], ...],
    ) -> None:
        self._name = name
        self._raw = raw
        self._begin = raw.tell() if raw.seekable() else None
        self._decompress = decompress
        self._errors = errors

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines. Raises RuntimeFailure."""
        self.problem = None
        is_empty = True
        try:
            if self._begin is not None:
                self._raw.seek(self._begin)
            stream = self._decompress(self._raw)
            for line in iter(partial(stream.readline, MAX_LINE_BYTES), b""):
                is_empty = False
                yield line
        except EOFError:
            self.problem = f"{self._name}: the compressed data is cut off"
        except self._errors as error:
            if is_empty:
                suffix = self._name.rpartition(".")[2]
                raise RuntimeFailure(f"{self._name}: not {suffix} data") from error
            self.problem = f"{self._name}: the compressed data is damaged"
        except OSError as error:
            raise RuntimeFailure(f"{self._name}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; stdin stays open."""
        self._raw.close()


class RecordingFiles(Recording):
    """The files of a directory, one after the other. A recorder may go on writing them, and remove
    old ones."""

    def __init__(self, path: str) -> None:
        """Raises RuntimeFailure."""
        self._path = path
        try:
            self._names = sorted(name for name in os.listdir(path) if _RECORDED.fullmatch(name))
        except OSError as error:
            raise RuntimeFailure(f"{path}: {error.strerror}") from error
        if not self._names:
            raise RuntimeFailure(f"{path}: no recordings, which have names such as *.ndjson")

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines. Raises RuntimeFailure."""
        self.problem = None
        for name in self._names:
            path = os.path.join(self._path, name)
            if os.path.lexists(path):
                with _open_file(path, rereadable=False) as file:
                    yield from file
                    self.problem = self.problem or file.problem


class Damage(NamedTuple):
    """Lines that are not records: how many, the number of the first, and a clause that says why."""

    lines: int
    first: int
    reason: str


class RecordReader:
    """Decodes the lines of a recording; damaged ones are left out and counted.

    ``damage`` is None if there was none. ``cut_off`` is the number of the last line if it is not
    whole, and otherwise None.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.damage: Damage | None = None
        self.cut_off: int | None = None
        self._lines = lines

    def __iter__(self) -> Iterator[Decoded]:
        self.damage = self.cut_off = None
        for number, line in enumerate(self._lines, 1):
            if self.cut_off is not None:  # It was not the last one.
                self._count(self.cut_off, "it is too long")
                self.cut_off = None
            try:
                record = decode(line)
            except DecodeError as error:
                if not line.endswith(b"\n"):
                    self.cut_off = number
                elif not line.isspace():
                    self._count(number, str(error))
            else:
                yield record

    def _count(self, number: int, reason: str) -> None:
        if self.damage is None:
            self.damage = Damage(1, number, reason)
        else:
            self.damage = self.damage._replace(lines=self.damage.lines + 1)

    def problems(self) -> list[str]:
        """Return a sentence for each thing that was wrong with the lines so far."""
        found = []
        if self.damage is not None:
            lines, first, reason = self.damage
            if lines == 1:
                found.append(f"line {first} is not a record: {reason}")
            else:
                found.append(f"{lines} lines are not records; the first is line {first}: {reason}")
        if self.cut_off is not None:
            found.append(f"cut off in line {self.cut_off}")
        return found


def time_span(records: Iterable[Decoded]) -> Span | None:
    """Return the span of a recording; None if it has no records."""
    first, last = float("inf"), float("-inf")
    for record in records:
        first, last = min(first, record.time), max(last, record.time)
    return Span(first, last) if first <= last else None


def state_at(records: Iterable[Decoded], at: float | None = None) -> State:
    """Return the state that a recording had at a time, in seconds since the Unix epoch; None: at
    its end. Raises UsageError if the recording does not include that time.

    The state is that of the records of each host before the first one that is later, so that it is
    what a live view showed then. The time of a change that an event showed is that of the event, a
    little before the poll that reported it; other changes count from the poll on that found them.
    """
    state = State()
    first, last = float("inf"), float("-inf")
    passed: set[str] = set()  # Hosts of which a later record was read.
    for record in records:
        time = record.time
        first, last = min(first, time), max(last, time)
        if at is not None and time > at:
            passed.add(record.host)
        elif record.host not in passed:
            state.apply(record)
    if at is None or first <= at <= last:
        return state
    if first > last:
        raise UsageError("at", "the recording has no records")
    side = "before" if at < first else "after"
    raise UsageError(
        "at",
        f"{_text(at)} is {side} the recording, which is from {timestamp(first)} to "
        f"{timestamp(last)}",
    )


def _text(time: float) -> str:
    """Return a time as RFC 3339 text, or as a number of seconds where no date has it."""
    try:
        return timestamp(time)
    except (ValueError, OverflowError, OSError):
        return f"{time:.0f}"
