"""Recordings of a fleet: the files, and recorders that are killed."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from agent import record
from agent.errors import RuntimeFailure
from agent.fleet_settings import EVERYTHING, Keep
from agent.record import Recorder, RecordingDirectory, file_name
from agent.remote.nats.chain import HostPosition
from agent.remote.nats.consumer import FleetConsumer, FleetPosition, HostRecords

from .broker import Connection, broker, needs_broker
from .feeding import ONE, THREE, TWO
from .fleet import Log, Publisher
from .relaying import Agent

HOST = HostPosition("e", 3, "r.1", in_step=True, whole=False, ended=(("d", 9),))
POSITION = FleetPosition(7, {"sockagent.a": HOST}, {"a": 2}, "2026-11-28T03:12:04Z")
FIRST, SECOND = file_name(0.0), file_name(3600.0)


def content(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.glob("*.ndjson")))


def test_a_recording_goes_on_at_its_position(tmp_path: Path) -> None:
    directory = RecordingDirectory(str(tmp_path))
    directory.write([(FIRST, b"1\n"), (FIRST, b"2\n")])
    directory.save(POSITION)
    directory.write([(FIRST, b"3\n"), (SECOND, b"4\n")])
    directory.close()
    again = RecordingDirectory(str(tmp_path))
    assert again.position == POSITION
    assert content(tmp_path) == b"1\n2\n"
    again.write([(SECOND, b"3\n"), (FIRST, b"4\n")])  # The clock was set back.
    again.close()
    assert (tmp_path / SECOND).read_bytes() == b"3\n4\n"


def test_what_precedes_the_first_position_is_cut_off(tmp_path: Path) -> None:
    directory = RecordingDirectory(str(tmp_path))
    directory.write([(FIRST, b"1\n")])
    directory.close()
    again = RecordingDirectory(str(tmp_path))
    assert again.position is None
    assert content(tmp_path) == b""
    again.close()


def test_a_directory_has_one_recorder(tmp_path: Path) -> None:
    first = RecordingDirectory(str(tmp_path))
    with pytest.raises(RuntimeFailure, match="another process records there"):
        RecordingDirectory(str(tmp_path))
    first.close()
    RecordingDirectory(str(tmp_path)).close()


def test_files_without_a_position_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_bytes(b"1\n")
    with pytest.raises(RuntimeFailure, match="use an empty directory"):
        RecordingDirectory(str(tmp_path))
    assert content(tmp_path) == b"1\n"


OUTSIDE = '{"sequence":1,"hosts":{},"counts":{},"file":"../x.ndjson","offset":0}'


@pytest.mark.parametrize("text", ["", "[]", '{"sequence":1}', '{"sequence":1,"hosts":3}', OUTSIDE])
def test_a_damaged_position_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "position.json").write_text(text)
    with pytest.raises(RuntimeFailure, match="not a position"):
        RecordingDirectory(str(tmp_path))


def test_a_file_that_lacks_its_end_is_reported(tmp_path: Path) -> None:
    directory = RecordingDirectory(str(tmp_path))
    directory.write([(FIRST, b"1\n2\n")])
    directory.save(POSITION)
    directory.close()
    os.truncate(tmp_path / FIRST, 2)
    with pytest.raises(RuntimeFailure, match=r"shorter than position\.json says"):
        RecordingDirectory(str(tmp_path))
    assert content(tmp_path) == b"1\n"


def test_a_removed_directory_is_reported(tmp_path: Path) -> None:
    directory = RecordingDirectory(str(tmp_path / "new"))
    shutil.rmtree(tmp_path / "new")
    with pytest.raises(RuntimeFailure, match="No such file or directory; the recording ends"):
        directory.save(POSITION)
    directory.close()


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RecordingDirectory(str(tmp_path))

    def write(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(RuntimeFailure, match="No space left on device; the recording ends"):
            directory.write([(FIRST, b"1\n")])
    directory.close()


def test_old_files_are_removed_by_age_and_by_size(tmp_path: Path) -> None:
    directory = RecordingDirectory(str(tmp_path))
    directory.write([(file_name(3600.0 * hour), b"1234\n") for hour in range(5)])
    directory.remove_old(EVERYTHING, 1e9)
    assert len(list(tmp_path.glob("*.ndjson"))) == 5
    directory.remove_old(Keep(seconds=3600 * 3), 3600.0 * 4)
    assert len(list(tmp_path.glob("*.ndjson"))) == 4
    directory.remove_old(Keep(size=10), 0.0)
    assert len(list(tmp_path.glob("*.ndjson"))) == 2
    directory.remove_old(Keep(seconds=1, size=1), 1e9)  # The newest one stays.
    assert [file.name for file in tmp_path.glob("*.ndjson")] == [file_name(3600.0 * 4)]
    directory.close()


EMPTY = '{"sequence":null,"hosts":{},"counts":{},"file":"","offset":0}'


@pytest.mark.parametrize("name", [FIRST, "position.json.new"])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    directory = RecordingDirectory(str(tmp_path / "new"))
    (tmp_path / "new" / name).symlink_to(victim)
    with suppress(RuntimeFailure):
        directory.write([(FIRST, b"1\n")])
        directory.save(POSITION)
    directory.close()
    assert victim.read_text() == "untouched"
    assert not (tmp_path / "new/position.json").is_symlink()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_a_position_that_is_no_file_is_reported(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "position.json")
    with pytest.raises(RuntimeFailure, match=r"position\.json: |Too many levels|a directory"):
        RecordingDirectory(str(tmp_path))


def test_a_pipe_in_the_place_of_the_newest_file_is_reported(tmp_path: Path) -> None:
    directory = RecordingDirectory(str(tmp_path))
    directory.write([(FIRST, b"1\n")])
    directory.save(POSITION)
    directory.close()
    (tmp_path / FIRST).unlink()
    os.mkfifo(tmp_path / FIRST)
    reader = os.open(tmp_path / FIRST, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(RuntimeFailure, match=f"{FIRST}: not a regular file"):
        RecordingDirectory(str(tmp_path))
    os.close(reader)


def test_files_that_the_position_does_not_name_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "position.json").write_text(EMPTY)
    (tmp_path / SECOND).write_bytes(b"of another\n")
    with pytest.raises(RuntimeFailure, match=rf"{SECOND}: position\.json does not name it"):
        RecordingDirectory(str(tmp_path))
    assert content(tmp_path) == b"of another\n"


def test_files_of_others_are_not_continued(tmp_path: Path) -> None:
    directory = RecordingDirectory(str(tmp_path))
    directory.write([(FIRST, b"1\n")])
    directory.save(POSITION)
    (tmp_path / SECOND).write_bytes(b"of another\n")
    with pytest.raises(RuntimeFailure, match=f"{SECOND}: File exists"):
        directory.write([(SECOND, b"2\n")])
    directory.close()
    with pytest.raises(RuntimeFailure, match="does not name it"):
        RecordingDirectory(str(tmp_path))
    assert content(tmp_path) == b"1\nof another\n"


@pytest.mark.parametrize("number", ["-5", "1e300", "1e400", "9223372036854775808"])
def test_a_position_with_impossible_numbers_is_reported(tmp_path: Path, number: str) -> None:
    (tmp_path / "position.json").write_text(EMPTY.replace("null", number))
    with pytest.raises(RuntimeFailure, match="not a position"):
        RecordingDirectory(str(tmp_path))


def test_every_time_has_a_file() -> None:
    assert file_name(-1e300) == FIRST
    assert file_name(1e300) == "9999-12-31T23Z.ndjson"


async def test_a_clock_of_the_broker_far_ahead_names_no_file(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.reading.time = time.time() + 10 * 365 * 86_400
    await recording.reading.read(8, b"1\n")
    await asyncio.sleep(0)
    await recording.stop()
    names = [name for name in os.listdir(tmp_path) if name.endswith("Z.ndjson")]
    assert len(names) == 1
    assert names[0] <= file_name(time.time())


def test_a_clock_far_ahead_does_not_make_all_files_old(tmp_path: Path) -> None:
    directory = RecordingDirectory(str(tmp_path))
    names = [file_name(3600.0 * hour) for hour in range(5)]
    directory.write([(name, b"1\n") for name in names])
    directory.remove_old(Keep(seconds=3600 * 2), 1e9)
    assert sorted(file.name for file in tmp_path.glob("*.ndjson")) == names[3:]
    directory.close()


def test_compressed_files_are_old_too_and_others_may_remove_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RecordingDirectory(str(tmp_path))
    names = [file_name(3600.0 * hour) for hour in range(3)]
    directory.write([(name, b"1234\n") for name in names])
    (tmp_path / names[0]).rename(tmp_path / f"{names[0]}.gz")
    (tmp_path / names[1]).unlink()
    listed = os.listdir
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", lambda path: [*listed(path), names[1]])
        directory.remove_old(Keep(size=9), 1e9)
    assert {file.name for file in tmp_path.iterdir()} == {names[2], "position.json"}
    directory.close()


class Reading:
    """A consumer that has read some records, and goes on reading."""

    def __init__(self, recorder: Recorder) -> None:
        self.position: FleetPosition | None = POSITION
        self.time = 0.0  # When the broker stored what is read.
        self._recorder = recorder

    async def read(self, sequence: int, records: bytes) -> None:
        self.position = POSITION._replace(sequence=sequence)
        await self._recorder.receive(HostRecords("a", records, self.time))

    async def run(self) -> NoReturn:
        await asyncio.get_running_loop().create_future()
        raise AssertionError


class Recording:
    """A recorder that runs."""

    def __init__(self, path: Path, keep: Keep = EVERYTHING) -> None:
        self.directory = RecordingDirectory(str(path))
        self.recorder = Recorder(self.directory, keep)
        self.reading = Reading(self.recorder)
        consumer = cast("FleetConsumer", self.reading)
        self.task = asyncio.create_task(self.recorder.run(consumer))

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self.directory.close()


async def test_after_a_failure_the_position_stays_before_what_was_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "SAVE_SECONDS", 0.0)
    recording = Recording(tmp_path)
    written: list[bytes] = []

    def write(descriptor: int, data: memoryview) -> int:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(bytes(data[:3]))
        return real(descriptor, data[:3])

    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        await recording.reading.read(8, b"123456\n")
        with pytest.raises(RuntimeFailure, match="No space left on device"):
            async with asyncio.timeout(10):
                await recording.task
    assert written == [b"123"]
    recording.directory.close()
    again = RecordingDirectory(str(tmp_path))
    assert again.position is None or again.position.sequence < 8
    assert content(tmp_path) == b""
    again.close()


async def test_a_recorder_that_ends_while_it_writes_writes_all_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "SAVE_SECONDS", 0.0)
    recording = Recording(tmp_path)
    writing, may_end = threading.Event(), threading.Event()
    write = recording.directory.write

    def write_slowly(parts: Any) -> None:
        if parts:
            writing.set()
            may_end.wait(10)
        write(parts)

    recording.directory.write = write_slowly  # type: ignore[method-assign]
    await recording.reading.read(8, b"1\n")
    assert await asyncio.to_thread(writing.wait, 10)
    await recording.reading.read(9, b"2\n")
    stopping = asyncio.create_task(recording.stop())
    for _ in range(5):
        await asyncio.sleep(0.01)
    may_end.set()
    await stopping
    again = RecordingDirectory(str(tmp_path))
    assert again.position == POSITION._replace(sequence=9)
    assert content(tmp_path) == b"1\n2\n"
    again.close()


async def test_a_failure_while_a_recorder_ends_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "SAVE_SECONDS", 0.0)
    recording = Recording(tmp_path)
    writing, may_end = threading.Event(), threading.Event()

    def fail(parts: Any) -> None:
        if parts:
            writing.set()
            may_end.wait(10)
            raise RuntimeFailure("full")

    recording.directory.write = fail  # type: ignore[method-assign]
    await recording.reading.read(8, b"1\n")
    assert await asyncio.to_thread(writing.wait, 10)
    recording.task.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(RuntimeFailure, match="full"):
        await recording.task
    recording.directory.close()


async def test_many_records_are_written_at_once(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    await asyncio.sleep(0)
    records = b"1" * 600_000 + b"\n"
    await recording.reading.read(8, records)
    assert content(tmp_path) == b""
    await recording.reading.read(9, records)
    assert content(tmp_path) == records * 2
    await recording.stop()


async def test_without_a_position_nothing_is_written(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.reading.position = None
    await asyncio.sleep(0)
    await recording.stop()
    again = RecordingDirectory(str(tmp_path))
    assert again.position is None
    again.close()


async def test_a_recorder_removes_old_files(tmp_path: Path) -> None:
    recording = Recording(tmp_path, Keep(seconds=3600))
    await recording.reading.read(8, b"1\n")
    recording.reading.time = time.time()
    await recording.reading.read(9, b"2\n")
    await asyncio.sleep(0)
    await recording.stop()
    assert content(tmp_path) == b"2\n"


@needs_broker
async def test_recorders_that_are_killed_write_each_record_once(tmp_path: Path) -> None:
    log, agent = Log(), Agent("a", "e")
    agent.poll(ONE)
    publisher = Publisher(log, 1)
    publisher.connect(agent)
    publisher.publish()
    path, stored = tmp_path / "records", 0
    with broker(tmp_path) as server:
        command = [
            sys.executable, "-m", "agent", "--connect", server.url, "--since", "start",
            "--record", str(path),
        ]  # fmt: skip
        async with Connection(server.url) as connection:
            await connection.make_stream()
            for kill in range(6):
                recorder = await asyncio.create_subprocess_exec(*command)
                for step in range(30):
                    agent.poll(*((TWO, THREE) if (kill + step) % 2 else (ONE,)))
                    publisher.publish()
                    for message in log.messages[stored:]:
                        await connection.put(message.host, message.link, message.records)
                    stored = len(log.messages)
                    await asyncio.sleep(0.02 + 0.02 * (kill % 3))
                recorder.send_signal(signal.SIGKILL)
                await recorder.wait()
            recorder = await asyncio.create_subprocess_exec(*command)
            expected = b"".join(message.records for message in log.messages)
            async with asyncio.timeout(15):
                while len(content(path)) < len(expected):  # noqa: ASYNC110 (another process)
                    await asyncio.sleep(0.05)
            recorder.terminate()
            assert await recorder.wait() == 0
    assert content(path) == expected
