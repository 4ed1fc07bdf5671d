import asyncio
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress

import pytest

from agent import log as log_module
from agent.log import (
    LIMIT_LINES,
    LIMIT_SECONDS,
    MAX_QUEUED_LINES,
    LineLimit,
    LoopErrorReporter,
    StderrWriter,
    capture_libraries,
    printable,
)

TIMEOUT = 10.0  # Seconds.


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages given to ``log``."""
    messages: list[str] = []
    monkeypatch.setattr(log_module, "log", messages.append)
    return messages


# The writer.


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = StderrWriter(writing)
    writer.write("one\n")
    writer.write("\udce9 two\n")
    writer.finish(TIMEOUT)
    assert os.read(reading, 100) == b"one\n\\udce9 two\n"


def test_a_message_cannot_control_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printable("näme a\nsockagent: \x1b[2J\x07 b") == ("näme a\\nsockagent: \\x1b[2J\\x07 b")
    written: list[str] = []
    monkeypatch.setattr(log_module._stderr, "write", written.append)
    log_module.log("näme a\nsockagent: \x1b[2J\x07 b")
    assert written == ["sockagent: näme a\\nsockagent: \\x1b[2J\\x07 b\n"]


def test_a_reader_that_stalls_blocks_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = StderrWriter(writing)
    line = "x" * 4096
    for _ in range(10 * MAX_QUEUED_LINES):  # Far more than a pipe holds.
        writer.write(f"{line}\n")
    writer.finish(0.01)
    # The queued lines are all written, and written whole, once there is a reader.
    received = bytearray()
    while received.count(b"\n") < MAX_QUEUED_LINES:
        received += os.read(reading, 65536)
    writer.finish(TIMEOUT)
    whole = received[: received.rindex(b"\n")]
    assert set(whole.decode().splitlines()) == {line}


def test_a_closed_stderr_is_ignored() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = StderrWriter(writing)
    writer.write("one\n")
    writer.finish(TIMEOUT)
    os.close(writing)


def test_lines_are_written_without_a_thread(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    writer = StderrWriter(pipe[1])
    for word in ("one", "two"):
        writer.write(f"{word}\n")
    writer.finish(0)
    assert os.read(pipe[0], 100) == b"one\ntwo\n"


def test_without_a_thread_a_full_stderr_does_not_block(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.set_blocking(pipe[1], False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe[1], b"x" * 4096)
    os.set_blocking(pipe[1], True)
    writer = StderrWriter(pipe[1])
    writing = threading.Thread(target=writer.write, args=("one\n",), daemon=True)
    start = threading.Thread.start

    def no_start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_start)
    start(writing)
    writing.join(TIMEOUT)
    is_blocked = writing.is_alive()
    os.read(pipe[0], 65536)
    assert not is_blocked
    writer.write("two\n")
    os.set_blocking(pipe[0], False)
    received = os.read(pipe[0], 1 << 20)
    assert received.endswith(b"two\n")
    assert b"one" not in received


# Limits.


def test_lines_beyond_the_limit_are_counted(logged: list[str]) -> None:
    limit = LineLimit("about x")
    for number in range(100):
        limit.log(f"{number}", now=number / 100)
    assert logged == [str(number) for number in range(LIMIT_LINES)]
    limit.log("later", now=LIMIT_SECONDS)
    assert logged[LIMIT_LINES:] == [f"and {100 - LIMIT_LINES} more lines about x", "later"]


async def test_repeated_errors_of_the_event_loop_are_logged_now_and_then(
    logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = LoopErrorReporter()
    loop = asyncio.get_running_loop()
    for _ in range(1000):
        report(loop, {"message": "accept()", "exception": OSError(24, "Too many open files")})
    assert logged == ["accept(): Too many open files (errors since the last such line: 1)"]
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now + 60)
    report(loop, {"message": "accept()", "exception": ValueError("x")})
    assert logged[1:] == ["accept(): ValueError('x') (errors since the last such line: 1000)"]


# Libraries.


@pytest.fixture
def library_lines(logged: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The messages given to ``log`` while libraries are captured."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    capture_libraries()
    yield logged
    logging.captureWarnings(capture=False)


def test_records_of_asyncio_are_limited(
    library_lines: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(1000):
        logging.getLogger("asyncio").warning("socket.send() raised exception.")
    assert library_lines == ["asyncio: socket.send() raised exception."] * LIMIT_LINES
    assert capfd.readouterr().err == ""


def test_the_end_of_a_connection_with_tls_is_no_news(library_lines: list[str]) -> None:
    # As asyncio says it, for example in asyncio.sslproto.
    logger = logging.getLogger("asyncio")
    logger.warning("returning true from eof_received() has no effect when using ssl")
    logger.warning("another")
    assert library_lines == ["asyncio: another"]


def test_an_exception_is_logged_on_one_line(library_lines: list[str]) -> None:
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("some.library").exception("it %s", "failed")
    logging.getLogger("some.library").error("%d", "no number")
    assert library_lines == ["some.library: it failed: ValueError('x')", "some.library: %d"]


def test_an_unraisable_exception_is_logged(library_lines: list[str]) -> None:
    class Faulty:
        def __del__(self) -> None:
            raise ValueError("x")

    Faulty()
    assert len(library_lines) == 1
    assert "ValueError('x')" in library_lines[0]


def test_warnings_are_logged(library_lines: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert len(library_lines) == 1
    assert "DeprecationWarning: old" in library_lines[0]


def test_a_long_line_is_cut(library_lines: list[str]) -> None:
    logging.getLogger("x").error("y" * 10_000)
    assert len(library_lines[0]) <= 500
