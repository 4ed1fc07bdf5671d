import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from agent import log as say_module
from agent.log import (
    LIMIT_LINES,
    LIMIT_SECONDS,
    MOST_WAITING,
    LineLimit,
    LoopErrorReporter,
    StderrWriter,
)

PATIENCE = 10.0  # Seconds until what does not come has failed.


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_lines_are_said_in_their_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    voice = StderrWriter(writing)
    voice.log("one")
    voice.log("\udce9 two")
    voice.finish(PATIENCE)
    assert os.read(reading, 100) == b"sockagent: one\nsockagent: \\udce9 two\n"


def test_names_move_no_cursor(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    voice = StderrWriter(writing)
    voice.log("näme a\nsockagent: \x1b[2J\x07 b")
    voice.finish(PATIENCE)
    told = os.read(reading, 100).decode()
    assert told == "sockagent: näme a\\nsockagent: \\x1b[2J\\x07 b\n"


def test_who_does_not_listen_makes_nobody_wait(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    voice = StderrWriter(writing)
    line = "x" * 4096
    for _ in range(10 * MOST_WAITING):  # Far more than a pipe holds.
        voice.log(line)
    voice.finish(0.01)
    # Those that waited are all said, and said whole, as soon as somebody listens.
    heard = bytearray()
    while heard.count(b"\n") < MOST_WAITING:
        heard += os.read(reading, 65536)
    voice.finish(PATIENCE)
    whole = heard[: heard.rindex(b"\n")]
    assert set(whole.decode().splitlines()) == {f"sockagent: {line}"}


def test_a_stderr_that_is_closed_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    voice = StderrWriter(writing)
    voice.log("one")
    voice.finish(PATIENCE)
    os.close(writing)


def test_without_a_thread_it_is_said_all_the_same(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    voice = StderrWriter(pipe[1])
    for word in ("one", "two"):
        voice.log(word)
    voice.finish(0)
    assert os.read(pipe[0], 100) == b"sockagent: one\nsockagent: two\n"


def test_without_a_thread_a_full_stderr_blocks_nobody(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.set_blocking(pipe[1], False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe[1], b"x" * 4096)
    os.set_blocking(pipe[1], True)
    voice = StderrWriter(pipe[1])
    saying = threading.Thread(target=voice.log, args=("one",), daemon=True)
    start = threading.Thread.start

    def no_start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_start)
    start(saying)
    saying.join(PATIENCE)
    blocked = saying.is_alive()
    os.read(pipe[0], 65536)
    assert not blocked
    voice.log("two")
    os.set_blocking(pipe[0], False)
    assert os.read(pipe[0], 1 << 20).endswith(b"sockagent: two\n")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(say_module, "log", lines.append)
    return lines


def test_lines_beyond_the_limit_are_counted(said: list[str]) -> None:
    limit = LineLimit("about x")
    for number in range(100):
        limit.log(f"{number}", now=number / 100)
    assert said == [str(number) for number in range(LIMIT_LINES)]
    limit.log("later", now=LIMIT_SECONDS)
    assert said[LIMIT_LINES:] == [f"and {100 - LIMIT_LINES} more lines about x", "later"]


async def test_troubles_that_go_on_are_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(say_module, "log", said.append)
    troubles = LoopErrorReporter()
    loop = asyncio.get_running_loop()
    for _ in range(1000):
        troubles(loop, {"message": "accept()", "exception": OSError(24, "Too many open files")})
    assert said == ["accept(): Too many open files (1 times since this was said)"]
    troubles._said -= 60
    troubles(loop, {"message": "accept()", "exception": ValueError("x")})
    assert said[1:] == ["accept(): ValueError('x') (1000 times since this was said)"]
