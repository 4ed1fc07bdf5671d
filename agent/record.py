"""Recordings of a fleet: files of records by the hour, each record once, whatever is killed.

The position file has what was read of the fleet, and the length that the newest file had then. What
the files have beyond it is cut off at the start, and read again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import time
from calendar import timegm
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from itertools import groupby
from operator import itemgetter

from orjson import JSONDecodeError, dumps, loads

from .config import Config
from .errors import RuntimeFailure
from .fleet_settings import Keep
from .remote.nats.chain import HostPosition
from .remote.nats.consumer import FleetConsumer, FleetPosition, HostRecords
from .remotes import configured_fleets

_POSITION, _NEW_POSITION = "position.json", "position.json.new"
_FILE = re.compile(r"\d{4}-\d\d-\d\dT\d\dZ\.ndjson", re.ASCII)
_ENDED_FILE = re.compile(rf"{_FILE.pattern}(\.gz)?", re.ASCII)  # Others may compress it.
_HOUR, _DAY = 3600.0, 86_400.0
_YEAR_9999_END = 253_402_300_799.0  # The last second that has a name of that form.
_MAX_NUMBER = 2**63  # What JSON takes.
# Seconds between two positions on disk: what is read again after a kill.
SAVE_SECONDS = 1.0
# Records that wait for the disk.
_MAX_BUFFER_BYTES = 1024 * 1024
_GOES_ON = "the recording ends here, and goes on when it is started again"


def file_name(at: float) -> str:
    """Return the name of the file for records of a time, in seconds since the Unix epoch."""
    return time.strftime("%Y-%m-%dT%HZ.ndjson", time.gmtime(min(max(at, 0.0), _YEAR_9999_END)))


def _hour_of(name: str) -> float:
    """Return when the hour of a file begins, in seconds since the Unix epoch."""
    try:
        return float(timegm(time.strptime(name[:13], "%Y-%m-%dT%H")))
    except ValueError:  # No such day.
        return _YEAR_9999_END


def _credible(at: float, now: float) -> float:
    """Return the time of a message, or that of this clock where the broker's is far ahead: all
    that follows would be in the file of that hour."""
    return at if at <= now + _DAY else now


class RecordingDirectory:
    """The files of a recording. Methods raise RuntimeFailure.

    ``position`` is what the files contain, None where there are none.
    """

    def __init__(self, path: str) -> None:
        self.position: FleetPosition | None = None
        self._path = path
        self._name, self._offset = "", 0
        # Files that were begun since the position, and what was stored of it.
        self._begun: list[str] = []
        self._stored: dict[str, object] = {}
        self._file: int | None = None
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            flock(self._directory, LOCK_EX | LOCK_NB)
            self._open()
        except BlockingIOError as error:
            raise RuntimeFailure(f"{path}: another process records there") from error
        except OSError as error:
            raise RuntimeFailure(f"{path}: {error.strerror}") from error

    def _open(self) -> None:
        """Read the position, and cut off what is behind it."""
        names = self._names()
        try:
            with open(self._in_directory(_POSITION, os.O_RDONLY), "rb") as file:
                self._load(file.read())
        except FileNotFoundError:
            if names:
                raise RuntimeFailure(
                    f"{self._path}: there are recordings without {_POSITION}; "
                    "use an empty directory"
                ) from None
            self.save(None)  # So that what is written before the first position is cut off.
        later = [name for name in names if name > self._name]
        for name in later:
            if name not in self._begun:
                raise RuntimeFailure(
                    f"{self._path}/{name}: {_POSITION} does not name it; "
                    "move it away, or use an empty directory"
                )
        for name in later:
            os.unlink(name, dir_fd=self._directory)
        if self._name:
            self._file = self._in_directory(self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            if os.fstat(self._file).st_size < self._offset:
                raise RuntimeFailure(f"{self._path}/{self._name}: shorter than {_POSITION} says")
            os.ftruncate(self._file, self._offset)

    def _load(self, content: bytes) -> None:
        try:
            saved = self._stored = loads(content)
            hosts = {}
            for subject, (epoch, through, last, in_step, whole, ended) in saved["hosts"].items():
                ends = tuple((str(one), int(seq)) for one, seq in ended)
                hosts[str(subject)] = HostPosition(
                    str(epoch), int(through), str(last), bool(in_step), bool(whole), ends
                )
            counts = {str(host): int(count) for host, count in saved["counts"].items()}
            if saved["sequence"] is not None:
                made = str(saved.get("made", ""))
                self.position = FleetPosition(int(saved["sequence"]), hosts, counts, made)
            self._name, self._offset = str(saved["file"]), int(saved["offset"])
            self._begun = list(map(str, saved.get("begun", ())))
            numbers = [self._offset, *(host.through for host in hosts.values())]
            numbers += [seq for host in hosts.values() for _, seq in host.ended]
            numbers += [self.position.sequence, *counts.values()] if self.position else []
            is_valid = all(0 <= number < _MAX_NUMBER for number in numbers)
        except (
            ArithmeticError, AttributeError, JSONDecodeError, LookupError, TypeError, ValueError,
        ) as error:  # fmt: skip
            raise RuntimeFailure(f"{self._path}/{_POSITION}: not a position") from error
        names = [self._name] if self._name else []
        if not is_valid or not all(map(_FILE.fullmatch, [*names, *self._begun])):
            raise RuntimeFailure(f"{self._path}/{_POSITION}: not a position")

    def _names(self) -> list[str]:
        return sorted(name for name in os.listdir(self._directory) if _FILE.fullmatch(name))

    def _in_directory(self, name: str, flags: int) -> int:
        """Open a regular file: a link may lead anywhere, and a pipe be open for ever."""
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(name, flags, 0o600, dir_fd=self._directory)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise RuntimeFailure(f"{os.path.join(self._path, name)}: not a regular file")
        return descriptor

    def _begin(self, name: str) -> int:
        """Begin a file; return its descriptor. The position names it before, so that a start
        removes no file of others."""
        self._close_file()
        if name in os.listdir(self._directory):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._begun.append(name)
        self._store_position()
        self._file = self._in_directory(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        self._name, self._offset = name, 0
        return self._file

    def write(self, parts: list[tuple[str, bytes]]) -> None:
        """Append records, each with the name of their file."""
        for wanted, of_file in groupby(parts, itemgetter(0)):
            name = max(wanted, self._name)  # The clock of the broker may be set back.
            try:
                file = self._file if name == self._name else None
                if file is None:
                    file = self._begin(name)
                rest = memoryview(b"".join(records for _, records in of_file))
                while rest:
                    written = os.write(file, rest)
                    self._offset += written
                    rest = rest[written:]
            except OSError as error:
                raise self._failure(name, error) from error

    def save(self, position: FleetPosition | None) -> None:
        """Store the position that the files have reached, None: they have no records."""
        hosts = position.hosts.items() if position else ()
        self._begun = []
        self._stored = {
            "sequence": position.sequence if position else None,
            "made": position.made if position else "",
            "file": self._name,
            "offset": self._offset,
            "counts": position.counts if position else {},
            "hosts": {subject: list(host) for subject, host in hosts},
        }
        try:
            if self._file is not None:
                os.fdatasync(self._file)
            self._store_position()
        except OSError as error:
            raise self._failure(_POSITION, error) from error

    def _store_position(self) -> None:
        directory = self._directory
        with suppress(FileNotFoundError):
            os.unlink(_NEW_POSITION, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(self._in_directory(_NEW_POSITION, flags), "wb") as file:
            file.write(dumps({**self._stored, "begun": self._begun}))
            file.flush()
            os.fsync(file.fileno())
        os.rename(_NEW_POSITION, _POSITION, src_dir_fd=directory, dst_dir_fd=directory)

    def remove_old(self, keep: Keep, now: float) -> None:
        """Remove the files beyond the limits, but not the newest one."""
        try:
            files = self._ended_files()
            size = sum(files.values()) + self._offset
            oldest = ""
            if keep.seconds is not None:
                # This clock may be far ahead: then all files would be old.
                now = min(now, _hour_of(self._name) + _HOUR) if self._name else now
                oldest = file_name(now - keep.seconds)
            for name, of_file in sorted(files.items()):
                if name >= oldest and (keep.size is None or size <= keep.size):
                    break
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._directory)
                size -= of_file
        except OSError as error:
            raise self._failure("", error) from error

    def _ended_files(self) -> dict[str, int]:
        """Return the sizes of the files before the newest one, also of those that others compress
        or remove meanwhile."""
        files = {}
        for name in os.listdir(self._directory):
            if _ENDED_FILE.fullmatch(name) and name < self._name:
                with suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
                    files[name] = found.st_size
        return files

    def _failure(self, name: str, error: OSError) -> RuntimeFailure:
        return RuntimeFailure(f"{os.path.join(self._path, name)}: {error.strerror}; {_GOES_ON}")

    def _close_file(self) -> None:
        if self._file is not None:
            os.fdatasync(self._file)
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Close the files; another process may record here."""
        with suppress(OSError):
            self._close_file()
        os.close(self._directory)


class Recorder:
    """Records what a consumer reads."""

    def __init__(self, directory: RecordingDirectory, keep: Keep) -> None:
        self._directory = directory
        self._keep = keep
        self._parts: list[tuple[str, bytes]] = []
        self._size = 0
        self._writing = asyncio.Lock()
        # Why the files lack records that precede the position of the consumer.
        self._failure: BaseException | None = None
        self._consumer: FleetConsumer | None = None

    async def run(self, consumer: FleetConsumer) -> None:
        """Record until cancelled; then write what was read. Raises RuntimeFailure."""
        self._consumer = consumer
        reading = asyncio.create_task(consumer.run())
        try:
            while True:
                done, _ = await asyncio.wait((reading,), timeout=SAVE_SECONDS)
                await self._save()
                if done:
                    reading.result()
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, RuntimeFailure):
                await reading
            await self._save()

    async def receive(self, found: HostRecords) -> None:
        """Take records; wait for the disk where there are many."""
        self._parts.append((file_name(_credible(found.time, time.time())), found.records))
        self._size += len(found.records)
        if self._size >= _MAX_BUFFER_BYTES:
            await self._save()

    async def _save(self) -> None:
        """Write what was read, and its position."""
        async with self._writing:
            position = self._consumer.position if self._consumer else None
            if self._failure is not None:
                raise self._failure
            if position is None:  # Without a position, files could not be continued.
                return
            # Taken together with the position, so that the files have what it says.
            parts, self._parts, self._size = self._parts, [], 0
            storing = asyncio.create_task(asyncio.to_thread(self._store, parts, position))
            try:
                await asyncio.shield(storing)
            finally:
                # The thread goes on when its caller is cancelled, and must end before the next one.
                await asyncio.wait((storing,))
                self._failure = storing.exception()

    def _store(self, parts: list[tuple[str, bytes]], position: FleetPosition) -> None:
        self._directory.write(parts)
        self._directory.save(position)
        self._directory.remove_old(self._keep, time.time())

    def connect(self) -> None:
        """Do nothing."""

    def disconnect(self, reason: str) -> None:
        """Do nothing: the next connection goes on."""

    def set_silent(self, host: str, *, silent: bool) -> None:
        """Do nothing: the consumer logs it."""


async def record(config: Config) -> None:
    """Record the configured fleet until cancelled. Raises RuntimeFailure and ConfigFailure."""
    fleet = configured_fleets(config, config.filter)[0]
    directory = RecordingDirectory(config.fleet.record or "")
    try:
        recorder = Recorder(directory, config.fleet.keep)
        await recorder.run(FleetConsumer(fleet, recorder, directory.position))
    finally:
        directory.close()
