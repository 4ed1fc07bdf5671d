"""The feed on standard output.

A write to a pipe blocks for as long as its reader does not read. It is made in a daemon thread,
which neither the poller nor the end of the process waits for. The flags of the descriptor are not
changed: O_NONBLOCK would also affect the other processes that share the pipe or terminal.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import threading
from collections.abc import AsyncIterable
from contextlib import suppress
from fcntl import F_GETFL, fcntl
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ..errors import RuntimeFailure

if TYPE_CHECKING:  # A one-shot snapshot does not load the feed.
    from ..stream.feed import Feed
    from ..stream.filters import Filter

STDOUT = 1
# Errors that mean that the reader of a pipe or the peer of a connection has left.
READER_LEFT = frozenset({errno.EPIPE, errno.ECONNRESET})
# How long `stop` waits for the reader to take what is left.
STOP_SECONDS = 0.5
_NEWLINE = ord("\n")


class IncompleteLine(OSError):
    """A write failed within a line: the output ends with a part of a record."""


class ChunkPublisher:
    """Publishes chunks of whole lines on a descriptor."""

    def __init__(self, chunks: AsyncIterable[bytes], descriptor: int) -> None:
        self._chunks = chunks
        self._descriptor = descriptor
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Publish until the chunks end or the reader leaves. Raises RuntimeFailure."""
        try:
            await publish(self._chunks, self._descriptor)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Wait until the reader has taken what is left, at most STOP_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._ended.wait()


class StdoutPublisher(ChunkPublisher):
    """Publishes the records of a feed that pass a filter on a descriptor."""

    def __init__(
        self,
        feed: Feed,
        chosen: Filter,
        descriptor: int = STDOUT,
        *,
        checkpoint: float | None = None,
    ) -> None:
        super().__init__(feed.subscribe(chosen, checkpoint=checkpoint), descriptor)


async def publish(chunks: AsyncIterable[bytes], descriptor: int) -> None:
    """Write chunks of whole lines until they end or the reader leaves.

    Cancellation ends it at once, even while a write blocks. Raises RuntimeFailure where the
    descriptor cannot be written to.
    """
    writer = ThreadedWriter(descriptor)
    closed = asyncio.ensure_future(reader_closed(descriptor))
    copying = asyncio.ensure_future(_copy(chunks, writer))
    try:
        await asyncio.wait((copying, closed, writer.failed), return_when=asyncio.FIRST_COMPLETED)
        if writer.failed.done() and not _is_closed(error := writer.failed.result(), descriptor):
            incomplete = isinstance(error, IncompleteLine)
            raise RuntimeFailure(
                f"cannot write to standard output: {error.strerror}"
                f"{'; the last line is incomplete' if incomplete else ''}"
            ) from error
        if copying.done():
            copying.result()
    finally:
        closed.cancel()
        copying.cancel()
        writer.close()
        await asyncio.gather(closed, copying, return_exceptions=True)


async def _copy(chunks: AsyncIterable[bytes], writer: ThreadedWriter) -> None:
    # While one chunk is written the next one is encoded; no further chunk waits in memory.
    writing: asyncio.Future[OSError | None] | None = None
    async for chunk in chunks:
        if writing is not None:
            await writing
        writing = writer.write(chunk)
    if writing is not None:
        await writing


def _is_closed(error: OSError, descriptor: int) -> bool:
    """Return whether a write failed because the reader left or the terminal was hung up (EIO)."""
    return error.errno in READER_LEFT or (
        error.errno == errno.EIO and stat.S_ISCHR(os.fstat(descriptor).st_mode)
    )


async def reader_closed(descriptor: int) -> None:
    """Wait until the reader of a pipe closes it; never return for other descriptors."""
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[None] = loop.create_future()
    # A pipe that is open for reading too (1<>fifo) always has a reader: this process.
    mode = fcntl(descriptor, F_GETFL) & os.O_ACCMODE
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode) or mode != os.O_WRONLY:
        await closed
    # The writing end of a pipe is never readable: only its error condition calls this.
    loop.add_reader(descriptor, lambda: None if closed.done() else closed.set_result(None))
    try:
        await closed
    finally:
        loop.remove_reader(descriptor)


class ThreadedWriter:
    """Writes chunks of whole lines to a descriptor, in a thread, one after the other.

    After a write that failed within a line, and where the file ends within a line from the start,
    a newline is written first. ``failed`` has the first error as its result.
    """

    def __init__(self, descriptor: int) -> None:
        # A duplicate: if the caller closes its descriptor, the number may be reused for another
        # file, which must not get what is still to be written.
        self._descriptor = os.dup(descriptor)
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[OSError] = self._loop.create_future()
        self._jobs: SimpleQueue[tuple[bytes, asyncio.Future[OSError | None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    def write(self, chunk: bytes) -> asyncio.Future[OSError | None]:
        """Start to write a chunk; the future's result is the error, if any."""
        done: asyncio.Future[OSError | None] = self._loop.create_future()
        self._jobs.put((chunk, done))
        return done

    def close(self) -> None:
        """End the thread after the writes that were started, without waiting for it."""
        self._jobs.put(None)

    def _run(self) -> None:
        try:
            self._write_all()
        finally:
            os.close(self._descriptor)

    def _write_all(self) -> None:
        incomplete = _ends_within_line(self._descriptor)
        while (job := self._jobs.get()) is not None:
            chunk, done = job
            if incomplete and chunk:
                chunk = b"\n" + chunk
            written, error = _write(self._descriptor, chunk)
            if written:
                incomplete = error is not None and chunk[written - 1] != _NEWLINE
            if error is not None and incomplete:
                error = IncompleteLine(*error.args)
            try:
                self._loop.call_soon_threadsafe(self._finish, done, error)
            except RuntimeError:  # The loop is closed: nothing waits for the result.
                return

    def _finish(self, done: asyncio.Future[OSError | None], error: OSError | None) -> None:
        if error is not None and not self.failed.done():
            self.failed.set_result(error)
        if not done.done():
            done.set_result(error)


def _write(descriptor: int, chunk: bytes) -> tuple[int, OSError | None]:
    """Write a chunk; return how many bytes were written, and the error that stopped it."""
    remaining = memoryview(chunk)
    try:
        while remaining:
            try:
                remaining = remaining[os.write(descriptor, remaining) :]
            except BlockingIOError:  # Another process has made the descriptor non-blocking.
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()
    except OSError as error:
        return len(chunk) - len(remaining), error
    return len(chunk), None


def _ends_within_line(descriptor: int) -> bool:
    """Return whether writes are appended to a file whose last byte is not a newline. Return False
    where that cannot be determined."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not fcntl(descriptor, F_GETFL) & os.O_APPEND:
            return False
        # The descriptor itself is usually open for writing only.
        with open(f"/proc/self/fd/{descriptor}", "rb", buffering=0) as file:
            return os.pread(file.fileno(), 1, max(0, status.st_size - 1)) not in (b"", b"\n")
    except OSError:
        return False
