"""Where the screen's records come from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.model import Opened
from agent.publish.top.model import Grouping
from agent.publish.top.sources import FeedSource, RecordingSource, RemoteSource, Source
from agent.stream.decoder import Decoded, decode
from agent.stream.encoder import Encoder
from agent.stream.times import Span

from ...feeding import AGENT, ONE, THREE, TWO
from ...feeding import Source as FeedOfTest
from ...make import FULL_COVERAGE
from ...recorded import DATA, START


def sockets(source: Source) -> int:
    return source.watch.header(source.now()).sockets


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (sources have no event)
            await asyncio.sleep(0.001)


class Running:
    """Runs a source for a while."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._source.run())

    async def __aexit__(self, *_raised: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


# The feed of this machine.


async def test_the_feed_fills_the_watch() -> None:
    made = FeedOfTest()
    source = FeedSource(made.feed, "host", dict)
    assert source.notice() == "reading sockets and processes"
    async with Running(source):
        made.poll(ONE)
        await until(lambda: sockets(source) == 1)
        made.poll(ONE, TWO)
        await until(lambda: sockets(source) == 2)
    assert source.notice() is None
    assert source.is_local
    assert source.is_live


async def test_queues_are_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.publish.top.sources.QUEUE_SECONDS", 0.001)
    listener = ONE._replace(socket=ONE.socket._replace(state="LISTEN", recv_q=0, backlog=8))
    made = FeedOfTest()
    made.poll(listener)
    waiting = 3

    def queues() -> dict[tuple[str, int], tuple[int, int]]:
        return {("host", listener.socket.inode): (waiting, 8)}

    source = FeedSource(made.feed, "host", queues)

    def shown() -> int | None:
        (row,) = source.watch.groups(Grouping.HOST, source.now())
        return row.queue and row.queue.recv_q

    async with Running(source):
        await until(lambda: sockets(source) == 1)
        await until(lambda: shown() == 3)
        waiting = 9
        await until(lambda: shown() == 9)


# Remote agents.


async def test_remote_records_fill_the_watch() -> None:
    records = [decode(line) for line in DATA.splitlines()]

    async def batches() -> AsyncIterator[Sequence[Decoded]]:
        for record in records:
            yield [record]
        await asyncio.Event().wait()

    source = RemoteSource(batches(), lambda: "cut off")
    async with Running(source):
        await until(lambda: source.watch.changes == len(records))
    assert sockets(source) == 2
    assert source.notice() == "cut off"
    assert not source.is_local
    source.move(-1)


# Recordings.


@pytest.fixture
def recording(tmp_path: Path) -> str:
    path = tmp_path / "recording.ndjson"
    path.write_bytes(DATA)
    return str(path)


async def test_a_recording_begins_at_its_end_and_moves(recording: str) -> None:
    source = RecordingSource(recording)
    assert source.notice() == "reading the recording"
    source.move(-1)  # Too early: nothing is known of it.
    async with Running(source):
        await until(lambda: source.notice() == "end of the recording")
        assert source.now() == START + 4
        assert sockets(source) == 2
        for seconds, at, count in (
            (-2, 2, 3), (-1, 1, 3), (-1, 0, 2), (-60, 0, 2), (1, 1, 3), (0.5, 1.5, 3), (60, 4, 2)
        ):  # fmt: skip
            source.move(seconds)
            await until(lambda: source.now() == START + at)  # noqa: B023
            assert sockets(source) == count, at
    assert not source.is_local
    assert not source.is_live


async def test_a_recording_is_shown_once_it_is_read(
    recording: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.publish.top.sources._BATCH", 1)
    source = RecordingSource(recording)
    seen = set()

    def is_read() -> bool:
        seen.add((source.now(), source.watch.changes))
        return source.notice() == "end of the recording"

    async with Running(source):
        await until(is_read)
    # Ages would be those since the beginning of time.
    assert {changes for now, changes in seen if not now} == {0}


async def test_moving_back_stops_at_the_first_record(tmp_path: Path) -> None:
    made = Encoder(AGENT)
    lines = [
        made.hello(1, START, FULL_COVERAGE, resumed=False),
        *made.holdings(made.head("snapshot", 1, START), (ONE, TWO)),
        made.snapshot_end(1, START, 2),
        made.delta(Opened(THREE), 2, START - 0.5),  # An event of the first poll.
        made.delta(FULL_COVERAGE, 3, START + 2),
    ]
    path = tmp_path / "recording.ndjson"
    path.write_bytes(b"".join(lines))
    source = RecordingSource(str(path))
    async with Running(source):
        await until(lambda: source.notice() == "end of the recording")
        source.move(-60)
        await until(lambda: source.notice() == "2 s before the end")
        assert source.now() == START
        assert sockets(source) == 3


async def test_moves_while_the_recording_is_read_add_up(recording: str) -> None:
    source = RecordingSource(recording)
    async with Running(source):
        await until(lambda: source.notice() == "end of the recording")
        for _ in range(3):
            source.move(-1)
        await until(lambda: source.notice() == "3 s before the end")
        assert sockets(source) == 3


async def test_a_recording_begins_at_the_wanted_time(recording: str) -> None:
    spans: list[Span] = []

    def start(span: Span) -> float:
        spans.append(span)
        return START + 1

    source = RecordingSource(recording, start)
    async with Running(source):
        await until(lambda: source.now() == START + 1)
        assert sockets(source) == 3
    assert spans == [Span(START, START + 4)]


async def test_an_empty_recording_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.ndjson"
    path.touch()
    source = RecordingSource(str(path))
    async with Running(source):
        await until(lambda: source.notice() == "the recording has no records")
        source.move(-1)
    assert sockets(source) == 0


async def test_damage_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr("agent.publish.top.sources.log", logged.append)
    path = tmp_path / "damaged.ndjson"
    path.write_bytes(b"nonsense\n" + DATA)
    source = RecordingSource(str(path))
    async with Running(source):
        await until(lambda: source.notice() == "end of the recording")
    assert logged == ["warning: line 1 is not a record: it is not JSON"]


async def test_a_file_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    source = RecordingSource(str(tmp_path / "none"))
    with pytest.raises(RuntimeFailure):
        await source.run()
