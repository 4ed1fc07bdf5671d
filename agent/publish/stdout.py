"""One subscription of the feed to standard output. It knows nothing of procfs and the tracker.

A write to a pipe whose reader stalls blocks, for as long as the reader likes. Here it blocks a
daemon thread of its own, which nothing waits for: neither the poller nor the end of the process.
The descriptor's flags stay as they are: making a shared pipe or terminal non-blocking would break
the other processes that write to it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import threading
from collections.abc import AsyncIterable
from fcntl import F_GETFL, fcntl
from queue import SimpleQueue

# That the reader is gone, of a pipe or of a connection, which ends it quietly.
CLOSED = frozenset({errno.EPIPE, errno.ECONNRESET})
_NEWLINE = ord("\n")


class IncompleteLine(OSError):
    """A write failed within a line: the output ends with a part of a record."""


class Writer:
    """Writes to a descriptor from a thread of its own, one chunk of whole lines at a time.

    Behind a part of a line, left by a full disk, it begins on a line of its own. Raises OSError.
    """

    def __init__(self, descriptor: int) -> None:
        # Our own: what is still to be written must not go to whatever gets that number next.
        self._descriptor = os.dup(descriptor)
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[OSError] = self._loop.create_future()
        self._jobs: SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Begin to write all of it; the future ends when that ends. ``failed`` tells if it did."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((chunk, done))
        return done

    def close(self) -> None:
        """End the thread once it is through; it is not waited for."""
        self._jobs.put(None)

    def _run(self) -> None:
        try:
            self._write()
        finally:
            os.close(self._descriptor)

    def _write(self) -> None:
        incomplete = _ends_within_line(self._descriptor)
        while (job := self._jobs.get()) is not None:
            chunk, done = job
            if incomplete and chunk:
                chunk = b"\n" + chunk
            failure: OSError | None = None
            left = memoryview(chunk)
            try:
                while left:
                    try:
                        left = left[os.write(self._descriptor, left) :]
                    except BlockingIOError:
                        _wait(self._descriptor)
                incomplete = incomplete and not chunk
            except OSError as error:
                if len(left) < len(chunk):
                    incomplete = chunk[-len(left) - 1] != _NEWLINE
                failure = IncompleteLine(*error.args) if incomplete else error
            try:
                self._loop.call_soon_threadsafe(self._settle, done, failure)
            except RuntimeError:  # The loop is closed: nobody waits for this any more.
                return

    def _settle(self, done: asyncio.Future[None], failure: OSError | None) -> None:
        if failure is not None and not self.failed.done():
            self.failed.set_result(failure)
        if not done.done():
            done.set_result(None)


def _ends_within_line(descriptor: int) -> bool:
    """Whether it appends to a file whose last byte is no newline; False where that is not known."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not fcntl(descriptor, F_GETFL) & os.O_APPEND:
            return False
        # The descriptor itself is mostly open for writing only.
        with open(f"/proc/self/fd/{descriptor}", "rb", buffering=0) as file:
            return os.pread(file.fileno(), 1, max(0, status.st_size - 1)) not in (b"", b"\n")
    except OSError:
        return False


def _wait(descriptor: int) -> None:
    """Wait until it takes more: whoever shares it with us has made it non-blocking."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    waiting.poll()


async def publish(chunks: AsyncIterable[bytes], descriptor: int) -> None:
    """Write the chunks until they end or the reader is gone. Raises OSError on other failures.

    Cancelling it ends it at once, even while a write blocks.
    """
    writer = Writer(descriptor)
    closed = asyncio.ensure_future(reader_closed(descriptor))
    copying = asyncio.ensure_future(_copy(chunks, writer))
    try:
        await asyncio.wait((copying, closed, writer.failed), return_when=asyncio.FIRST_COMPLETED)
        if writer.failed.done() and not _is_closed(writer.failed.result(), descriptor):
            raise writer.failed.result()
        if copying.done():
            copying.result()
    finally:
        closed.cancel()
        copying.cancel()
        writer.close()
        await asyncio.gather(closed, copying, return_exceptions=True)


def _is_closed(error: OSError, descriptor: int) -> bool:
    """Whether it failed because the reader is gone: of a terminal, because it was hung up."""
    return error.errno in CLOSED or (
        error.errno == errno.EIO and stat.S_ISCHR(os.fstat(descriptor).st_mode)
    )


async def _copy(chunks: AsyncIterable[bytes], writer: Writer) -> None:
    # While one chunk is being written the next is encoded; no more than that is ever waiting.
    writing: asyncio.Future[None] | None = None
    async for chunk in chunks:
        if writing is not None:
            await writing
        writing = writer.write(chunk)
    if writing is not None:
        await writing


async def reader_closed(descriptor: int) -> None:
    """Wait until the reader of a pipe is gone; for ever on what is no pipe."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    # One that is open for reading too (1<>fifo) always has a reader: ourselves.
    mode = fcntl(descriptor, F_GETFL) & os.O_ACCMODE
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode) or mode != os.O_WRONLY:
        await gone
    # The writing end of a pipe is never readable: only its error condition wakes this.
    loop.add_reader(descriptor, lambda: None if gone.done() else gone.set_result(None))
    try:
        await gone
    finally:
        loop.remove_reader(descriptor)
