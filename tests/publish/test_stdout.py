import asyncio
import errno
import fcntl
import gc
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.publish.stdout import StdoutPublisher, ThreadedWriter, publish
from agent.stream.feed import Feed
from agent.stream.filters import Filter

from ..feeding import AGENT, ONE, TWO
from ..make import records, snapshot

# How long a test waits for an event before it fails.
TIMEOUT_SECONDS = 5


class Pipe:
    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)

    def close_reader(self) -> None:
        if self.reading >= 0:
            os.close(self.reading)
        self.reading = -1

    def close_writer(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
        self.writing = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    opened.close_reader()
    opened.close_writer()


async def endless(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    await asyncio.Event().wait()


async def finite(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(pipe: Pipe) -> bytes:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(pipe.reading, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), TIMEOUT_SECONDS)
    finally:
        loop.remove_reader(pipe.reading)
    return os.read(pipe.reading, 65_536)


async def ended(printing: asyncio.Future[None]) -> None:
    await asyncio.wait_for(printing, TIMEOUT_SECONDS)


async def test_publish_writes_chunks_in_order_and_ends_after_the_last(pipe: Pipe) -> None:
    await publish(finite(b"one\n", b"", b"two\n"), pipe.writing)
    assert await read(pipe) == b"one\ntwo\n"


async def test_a_chunk_is_written_at_once(pipe: Pipe) -> None:
    printing = asyncio.ensure_future(publish(endless(b"one\n"), pipe.writing))
    assert await read(pipe) == b"one\n"
    assert not printing.done()
    printing.cancel()
    await asyncio.wait([printing])


async def test_a_chunk_larger_than_the_pipe_is_written_completely(pipe: Pipe) -> None:
    chunk = bytes(range(256)) * 1000
    printing = asyncio.ensure_future(publish(finite(chunk), pipe.writing))
    got = b""
    while len(got) < len(chunk):
        got += await read(pipe)
    await ended(printing)
    assert got == chunk


async def test_publish_returns_when_the_reader_leaves_while_idle(pipe: Pipe) -> None:
    printing = asyncio.ensure_future(publish(endless(b"one\n"), pipe.writing))
    await read(pipe)
    pipe.close_reader()
    await ended(printing)


async def test_publish_returns_when_the_reader_leaves_during_a_write(pipe: Pipe) -> None:
    printing = asyncio.ensure_future(publish(endless(b"x" * 100_000), pipe.writing))
    await read(pipe)
    pipe.close_reader()
    await ended(printing)


async def test_publish_returns_when_there_is_no_reader_from_the_start(pipe: Pipe) -> None:
    pipe.close_reader()
    await asyncio.wait_for(publish(endless(b"one\n"), pipe.writing), TIMEOUT_SECONDS)


async def test_a_stalled_reader_delays_neither_other_writers_nor_cancellation(pipe: Pipe) -> None:
    printing = asyncio.ensure_future(publish(endless(b"x" * 100_000), pipe.writing))
    other = Pipe()
    await publish(finite(b"meanwhile\n"), other.writing)
    assert await read(other) == b"meanwhile\n"
    other.close_reader()
    other.close_writer()
    assert not printing.done()
    printing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await printing


async def test_publish_returns_when_the_peer_of_a_socket_has_closed() -> None:
    reading, writing = socket.socketpair()
    reading.close()
    with writing:
        await publish(finite(b"one\n", b"two\n"), writing.fileno())


async def test_a_pipe_opened_read_write_counts_as_having_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    both = os.open(tmp_path / "fifo", os.O_RDWR)
    await asyncio.wait_for(publish(finite(*[b"line\n"] * 100), both), TIMEOUT_SECONDS)
    assert os.read(both, 1000) == b"line\n" * 100
    os.close(both)


async def test_publish_returns_when_the_terminal_is_hung_up() -> None:
    master, terminal = os.openpty()
    os.close(master)
    await asyncio.wait_for(publish(endless(b"one\n", b"two\n"), terminal), TIMEOUT_SECONDS)
    os.close(terminal)


async def test_the_flags_of_the_descriptor_are_not_changed(pipe: Pipe) -> None:
    before = fcntl.fcntl(pipe.writing, fcntl.F_GETFL)
    printing = asyncio.ensure_future(publish(endless(b"one\n"), pipe.writing))
    await read(pipe)
    assert fcntl.fcntl(pipe.writing, fcntl.F_GETFL) == before
    pipe.close_reader()
    await ended(printing)


async def test_publish_writes_to_a_file(tmp_path: Path) -> None:
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    await publish(finite(b"one\n", b"two\n"), out)
    os.close(out)
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"one\n"),
        (b"whole\n", b"whole\none\n"),
        (b'{"part', b'{"part\none\n'),
        (b"whole\n{", b"whole\n{\none\n"),
    ],
)
async def test_appending_starts_on_a_new_line(before: bytes, after: bytes, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(before)
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_APPEND)
    await publish(finite(b"", b"one\n"), out)
    os.close(out)
    assert (tmp_path / "out").read_bytes() == after


async def test_an_empty_chunk_changes_no_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"part")
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_APPEND)
    await publish(finite(b""), out)
    os.close(out)
    assert (tmp_path / "out").read_bytes() == b"part"


async def test_without_o_append_no_newline_is_inserted(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"part")
    out = os.open(tmp_path / "out", os.O_RDWR)
    os.lseek(out, 0, os.SEEK_END)
    await publish(finite(b"one\n"), out)
    os.close(out)
    assert (tmp_path / "out").read_bytes() == b"partone\n"


def small_file(path: Path, *chunks: bytes) -> tuple[bytes, list[str]]:
    """Write chunks to a file that may grow to 10 bytes, and to 20 after the first failure.

    Return the content of the file and the result of each write.
    """
    script = """
import asyncio, os, resource, sys
from agent.publish.stdout import ThreadedWriter
async def main(path, *chunks):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 20))
    writer = ThreadedWriter(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    for chunk in chunks:
        error = await writer.write(chunk.encode() + b"\\n")
        print("written" if error is None else type(error).__name__)
        if error is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
    writer.close()
asyncio.run(main(*sys.argv[1:]))
"""
    arguments = [sys.executable, "-c", script, str(path), *(chunk.decode() for chunk in chunks)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return path.read_bytes(), done.stdout.split()


@pytest.mark.parametrize(
    ("chunks", "content", "ends"),
    [
        # The write stops within a line: the next chunk starts on a new line.
        (
            (b"1234567", b"8901234", b"x"),
            b"1234567\n89\nx\n",
            ["written", "IncompleteLine", "written"],
        ),
        # Only whole lines fit: no newline is inserted.
        ((b"123456789", b"x", b"y"), b"123456789\ny\n", ["written", "OSError", "written"]),
    ],
)
def test_a_write_after_a_partial_line_starts_on_a_new_line(
    chunks: tuple[bytes, ...], content: bytes, ends: list[str], tmp_path: Path
) -> None:
    assert small_file(tmp_path / "out", *chunks) == (content, ends)


@pytest.fixture
def full() -> Iterator[int]:
    opened = os.open("/dev/full", os.O_WRONLY)
    yield opened
    os.close(opened)


async def test_a_full_device_is_a_runtime_failure(full: int) -> None:
    with pytest.raises(RuntimeFailure) as raised:
        await publish(finite(b"one\n"), full)
    assert str(raised.value) == "cannot write to standard output: No space left on device"
    assert isinstance(raised.value.__cause__, OSError)


async def test_a_failure_is_raised_while_no_further_chunk_comes(full: int) -> None:
    printing = asyncio.ensure_future(publish(endless(b"one\n"), full))
    done, _pending = await asyncio.wait([printing], timeout=TIMEOUT_SECONDS)
    printing.cancel()
    failures = await asyncio.gather(printing, return_exceptions=True)
    gc.collect()  # Exceptions that were never retrieved are reported here, not in another test.
    assert done
    assert [type(failure) for failure in failures] == [RuntimeFailure]


async def test_an_error_of_the_source_is_raised(pipe: Pipe) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"one\n"
        raise LookupError

    with pytest.raises(LookupError):
        await publish(broken(), pipe.writing)


async def test_a_writer_accepts_chunks_after_a_failure(full: int) -> None:
    writer = ThreadedWriter(full)
    for _ in range(2):
        error = await asyncio.wait_for(writer.write(b"x"), TIMEOUT_SECONDS)
        assert error
        assert error.errno == errno.ENOSPC
        assert writer.failed.result().errno == errno.ENOSPC
    writer.close()


async def test_a_non_blocking_pipe_is_polled(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    data = b"".join(b"%07d\n" % number for number in range(20_000))
    publishing = asyncio.ensure_future(publish(finite(data), pipe.writing))
    received = b""
    while len(received) < len(data):
        received += await read(pipe)
    await publishing
    assert received == data


async def test_pending_writes_do_not_follow_a_reused_descriptor_number(tmp_path: Path) -> None:
    pipe = Pipe()
    writer = ThreadedWriter(pipe.writing)
    first, second = b"x" * 100_000, b"two\n"  # More than a pipe holds.
    writer.write(first)
    written = writer.write(second)
    another = os.open(tmp_path / "another", os.O_WRONLY | os.O_CREAT)
    os.dup2(another, pipe.writing)
    os.close(another)
    received = b""
    while len(received) < len(first + second):
        received += await read(pipe)
    await asyncio.wait_for(written, TIMEOUT_SECONDS)
    writer.close()
    pipe.close_reader()
    pipe.close_writer()
    assert received == first + second
    assert (tmp_path / "another").read_bytes() == b""


async def test_publish_returns_when_the_connection_was_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _address = server.accept()
    with client:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        printing = publish(endless(b"one\n", b"two\n"), client.fileno())
        await asyncio.wait_for(printing, TIMEOUT_SECONDS)


async def test_stdout_publisher_ends_with_the_feed(pipe: Pipe) -> None:
    feed = Feed(AGENT)
    publisher = StdoutPublisher(feed, Filter({"port": ["2"]}), pipe.writing)
    running = asyncio.create_task(publisher.run())
    feed.publish(snapshot(ONE, TWO), [])
    received = b""
    while b"snapshot_end" not in received:
        received += await read(pipe)
    inodes = [record["inode"] for record in records(received) if record["event"] == "snapshot"]
    assert inodes == [2]
    assert not running.done()
    feed.stop()
    await publisher.stop()
    await ended(running)


async def test_stop_does_not_wait_for_a_stalled_reader(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.publish.stdout.STOP_SECONDS", 0.05)
    feed = Feed(AGENT)
    feed.publish(snapshot(*[ONE, TWO] * 20), [])
    os.write(pipe.writing, b"x" * 4096)  # The pipe is full.
    publisher = StdoutPublisher(feed, Filter(), pipe.writing)
    running = asyncio.create_task(publisher.run())
    feed.stop()
    await asyncio.wait_for(publisher.stop(), TIMEOUT_SECONDS)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
