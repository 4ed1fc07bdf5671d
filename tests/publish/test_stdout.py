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

from agent.publish.stdout import Writer, publish

# Seconds until a test that waits for what does not come has failed.
PATIENCE = 5


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


async def then_nothing(*some: bytes) -> AsyncIterator[bytes]:
    for chunk in some:
        yield chunk
    await asyncio.Event().wait()


async def then_the_end(*some: bytes) -> AsyncIterator[bytes]:
    for chunk in some:
        yield chunk


async def read(pipe: Pipe) -> bytes:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(pipe.reading, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), PATIENCE)
    finally:
        loop.remove_reader(pipe.reading)
    return os.read(pipe.reading, 65_536)


async def ended(printing: asyncio.Future[None]) -> None:
    await asyncio.wait_for(printing, PATIENCE)


async def test_chunks_are_written_in_order_and_it_ends_with_them(pipe: Pipe) -> None:
    await publish(then_the_end(b"one\n", b"", b"two\n"), pipe.writing)
    assert await read(pipe) == b"one\ntwo\n"


async def test_a_chunk_is_written_as_soon_as_it_is_there(pipe: Pipe) -> None:
    printing = asyncio.ensure_future(publish(then_nothing(b"one\n"), pipe.writing))
    assert await read(pipe) == b"one\n"
    assert not printing.done()
    printing.cancel()
    await asyncio.wait([printing])


async def test_a_chunk_longer_than_the_pipe_is_written_whole(pipe: Pipe) -> None:
    chunk = bytes(range(256)) * 1000
    printing = asyncio.ensure_future(publish(then_the_end(chunk), pipe.writing))
    got = b""
    while len(got) < len(chunk):
        got += await read(pipe)
    await ended(printing)
    assert got == chunk


async def test_a_reader_that_goes_while_nothing_is_written_ends_it_quietly(pipe: Pipe) -> None:
    printing = asyncio.ensure_future(publish(then_nothing(b"one\n"), pipe.writing))
    await read(pipe)
    pipe.close_reader()
    await ended(printing)


async def test_a_reader_that_goes_while_a_write_waits_ends_it_quietly(pipe: Pipe) -> None:
    printing = asyncio.ensure_future(publish(then_nothing(b"x" * 100_000), pipe.writing))
    await read(pipe)
    pipe.close_reader()
    await ended(printing)


async def test_a_reader_that_never_was_ends_it_quietly(pipe: Pipe) -> None:
    pipe.close_reader()
    await asyncio.wait_for(publish(then_nothing(b"one\n"), pipe.writing), PATIENCE)


async def test_a_stalled_reader_delays_nobody_and_its_end_is_not_waited_for(pipe: Pipe) -> None:
    printing = asyncio.ensure_future(publish(then_nothing(b"x" * 100_000), pipe.writing))
    other = Pipe()
    await publish(then_the_end(b"meanwhile\n"), other.writing)
    assert await read(other) == b"meanwhile\n"
    other.close_reader()
    other.close_writer()
    assert not printing.done()
    printing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await printing


async def test_a_reader_of_a_socket_that_is_gone_ends_it_quietly() -> None:
    reading, writing = socket.socketpair()
    reading.close()
    with writing:
        await publish(then_the_end(b"one\n", b"two\n"), writing.fileno())


async def test_a_pipe_that_is_open_for_reading_too_has_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    both = os.open(tmp_path / "fifo", os.O_RDWR)
    await asyncio.wait_for(publish(then_the_end(*[b"line\n"] * 100), both), PATIENCE)
    assert os.read(both, 1000) == b"line\n" * 100
    os.close(both)


async def test_a_terminal_that_is_hung_up_ends_it_quietly() -> None:
    master, terminal = os.openpty()
    os.close(master)
    await asyncio.wait_for(publish(then_nothing(b"one\n", b"two\n"), terminal), PATIENCE)
    os.close(terminal)


async def test_the_flags_of_the_descriptor_stay_as_they_were(pipe: Pipe) -> None:
    before = fcntl.fcntl(pipe.writing, fcntl.F_GETFL)
    printing = asyncio.ensure_future(publish(then_nothing(b"one\n"), pipe.writing))
    await read(pipe)
    assert fcntl.fcntl(pipe.writing, fcntl.F_GETFL) == before
    pipe.close_reader()
    await ended(printing)


async def test_a_file_is_written_to(tmp_path: Path) -> None:
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    await publish(then_the_end(b"one\n", b"two\n"), out)
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
async def test_what_is_appended_begins_on_a_line_of_its_own(
    before: bytes, after: bytes, tmp_path: Path
) -> None:
    (tmp_path / "out").write_bytes(before)
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_APPEND)
    await publish(then_the_end(b"", b"one\n"), out)
    os.close(out)
    assert (tmp_path / "out").read_bytes() == after


async def test_without_anything_to_append_a_file_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"part")
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_APPEND)
    await publish(then_the_end(b""), out)
    os.close(out)
    assert (tmp_path / "out").read_bytes() == b"part"


async def test_what_is_written_behind_something_else_is_written_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"part")
    out = os.open(tmp_path / "out", os.O_RDWR)
    os.lseek(out, 0, os.SEEK_END)
    await publish(then_the_end(b"one\n"), out)
    os.close(out)
    assert (tmp_path / "out").read_bytes() == b"partone\n"


def small_file(path: Path, *chunks: bytes) -> tuple[bytes, list[str]]:
    """What a file that takes 10 bytes has after these chunks, and how each write ended."""
    script = """
import asyncio, os, resource, sys
from agent.publish.stdout import Writer
async def main(path, *chunks):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 20))
    writer = Writer(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    for chunk in chunks:
        await writer.write(chunk.encode() + b"\\n")
        print(type(writer.failed.result()).__name__ if writer.failed.done() else "written")
        if writer.failed.done():
            resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
            writer.failed = asyncio.get_running_loop().create_future()
    writer.close()
asyncio.run(main(*sys.argv[1:]))
"""
    arguments = [sys.executable, "-c", script, str(path), *(chunk.decode() for chunk in chunks)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return path.read_bytes(), done.stdout.split()


@pytest.mark.parametrize(
    ("chunks", "content", "ends"),
    [
        # A line is cut off: the next chunk begins on a line of its own.
        (
            (b"1234567", b"8901234", b"x"),
            b"1234567\n89\nx\n",
            ["written", "IncompleteLine", "written"],
        ),
        # There is room for whole lines only: nothing is cut off.
        ((b"123456789", b"x", b"y"), b"123456789\ny\n", ["written", "OSError", "written"]),
    ],
)
def test_a_writer_that_failed_within_a_line_begins_another(
    chunks: tuple[bytes, ...], content: bytes, ends: list[str], tmp_path: Path
) -> None:
    assert small_file(tmp_path / "out", *chunks) == (content, ends)


@pytest.fixture
def full() -> Iterator[int]:
    opened = os.open("/dev/full", os.O_WRONLY)
    yield opened
    os.close(opened)


async def test_a_full_device_is_a_failure(full: int) -> None:
    with pytest.raises(OSError) as caught:
        await publish(then_the_end(b"one\n"), full)
    assert caught.value.errno == errno.ENOSPC


async def test_a_failure_is_told_though_nothing_more_comes(full: int) -> None:
    printing = asyncio.ensure_future(publish(then_nothing(b"one\n"), full))
    told, _waiting = await asyncio.wait([printing], timeout=PATIENCE)
    printing.cancel()
    failures = await asyncio.gather(printing, return_exceptions=True)
    gc.collect()  # What nobody asked for is reported here, and not in the midst of another test.
    assert told
    assert [getattr(failure, "errno", None) for failure in failures] == [errno.ENOSPC]


async def test_what_goes_wrong_before_it_comes_through(pipe: Pipe) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"one\n"
        raise LookupError

    with pytest.raises(LookupError):
        await publish(broken(), pipe.writing)


async def test_a_writer_goes_on_after_a_failure(full: int) -> None:
    writer = Writer(full)
    for _ in range(2):
        await asyncio.wait_for(writer.write(b"x"), PATIENCE)
        assert writer.failed.result().errno == errno.ENOSPC
    writer.close()


async def test_a_pipe_that_another_made_non_blocking_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    data = b"".join(b"%07d\n" % number for number in range(20_000))
    publishing = asyncio.ensure_future(publish(then_the_end(data), pipe.writing))
    heard = b""
    while len(heard) < len(data):
        heard += await read(pipe)
    await publishing
    assert heard == data


async def test_what_is_still_to_be_written_goes_nowhere_else(tmp_path: Path) -> None:
    pipe = Pipe()
    writer = Writer(pipe.writing)
    first, second = b"x" * 100_000, b"two\n"  # More than a pipe holds.
    writer.write(first)
    written = writer.write(second)
    another = os.open(tmp_path / "another", os.O_WRONLY | os.O_CREAT)
    os.dup2(another, pipe.writing)
    os.close(another)
    heard = b""
    while len(heard) < len(first + second):
        heard += await read(pipe)
    await asyncio.wait_for(written, PATIENCE)
    writer.close()
    pipe.close_reader()
    pipe.close_writer()
    assert heard == first + second
    assert (tmp_path / "another").read_bytes() == b""


async def test_a_connection_that_was_reset_ends_it_quietly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _address = server.accept()
    with client:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        printing = publish(then_nothing(b"one\n", b"two\n"), client.fileno())
        await asyncio.wait_for(printing, PATIENCE)
