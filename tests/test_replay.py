"""What is printed of recordings."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import replay
from agent.config import Config, View
from agent.errors import RuntimeFailure, UsageError
from agent.model import Opened, Snapshot
from agent.publish.terminal.stream_log import StreamLog, is_of_socket, is_record_match
from agent.record import file_name
from agent.replay import RecordingOutput
from agent.stream.decoder import decode
from agent.stream.encoder import Encoder
from agent.stream.filters import Filter

from .feeding import AGENT, ONE, THREE, TWO, Source
from .make import records
from .recorded import DATA, START, UTC, churn, printed, words
from .strategies import runs

encoder = Encoder(AGENT)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings on stderr."""
    messages: list[str] = []
    monkeypatch.setattr(replay, "log", messages.append)
    return messages


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording"
    path.write_bytes(DATA)
    return path


def config(filters: dict[str, list[str]] | None = None, **view: Any) -> Config:
    return Config(filter=Filter(filters), view=View(**view))


def of_file(
    path: Path, output: str, filters: dict[str, list[str]] | None = None, **view: Any
) -> tuple[bool, bytes]:
    chosen = config(filters, read=str(path), utc=True, **view)
    return printed(RecordingOutput(str(path), chosen, output, UTC))


def ports(data: bytes) -> list[int]:
    """The ports of an array of records."""
    return [record["local_port"] for record in json.loads(data)]


# The records of a recording.


def test_the_records_are_the_lines(recording: Path, logged: list[str]) -> None:
    assert of_file(recording, "ndjson") == (True, DATA)
    assert logged == []


def test_a_filter_leaves_whole_lines_and_the_records_of_the_stream(recording: Path) -> None:
    matched, data = of_file(recording, "ndjson", {"port": ["3"]})
    lines = DATA.splitlines(keepends=True)
    assert matched
    assert data.splitlines(keepends=True) == [
        line for line in lines if "local_port" not in json.loads(line) or b'"local_port":3' in line
    ]
    events = [record["event"] for record in records(data)]
    assert events == ["hello", "snapshot_end", "open", "close", "coverage"]


def test_a_filter_of_events(recording: Path) -> None:
    _, data = of_file(recording, "ndjson", {"event": ["update"]})
    events = [record["event"] for record in records(data)]
    assert events == ["hello", "snapshot_end", "update", "coverage"]


def test_records_of_which_none_passes_are_no_match(recording: Path) -> None:
    matched, data = of_file(recording, "ndjson", {"port": ["9"]})
    assert not matched
    assert [record["event"] for record in records(data)] == ["hello", "snapshot_end", "coverage"]


@pytest.mark.parametrize("count", [511, 512, 513, 1_100])
def test_records_of_several_batches(tmp_path: Path, count: int) -> None:
    path = tmp_path / "recording"
    data = b"".join(encoder.delta(Opened(ONE), seq, START) for seq in range(count))
    path.write_bytes(data)
    assert of_file(path, "ndjson") == (True, data)
    assert of_file(path, "log")[1].count(b"\n") == count


def test_a_compressed_recording(tmp_path: Path) -> None:
    path = tmp_path / "recording.gz"
    path.write_bytes(gzip.compress(DATA))
    assert of_file(path, "ndjson") == (True, DATA)


@given(
    polls=runs(most=3),
    filters=st.sampled_from([{}, {"proto": ["tcp"]}, {"port!": ["1"]}, {"event": ["open"]}]),
)
def test_a_recording_of_a_feed(
    tmp_path_factory: pytest.TempPathFactory, polls: list[Snapshot], filters: dict[str, list[str]]
) -> None:
    source = Source()
    source.publish(polls[0])
    subscription = source.feed.subscribe()
    for poll in polls[1:]:
        source.publish(poll)
    data = b""
    while chunk := subscription.take():
        data += chunk
    path = tmp_path_factory.mktemp("feed") / "recording"
    path.write_bytes(data)

    chosen, lines = Filter(filters), data.splitlines(keepends=True)
    decoded = [decode(line) for line in lines]
    passed = [is_record_match(chosen, record) for record in decoded]
    log = StreamLog(chosen, UTC)
    log_lines = [line for record in decoded for line in log.of_record(record)] + list(log.end())
    assert of_file(path, "ndjson", filters) == (
        any(passed),
        b"".join(
            line
            for line, record, is_shown in zip(lines, decoded, passed, strict=True)
            if is_shown or not is_of_socket(record)
        ),
    )
    assert of_file(path, "log", filters) == (
        any(passed),
        "".join(f"{line}\n" for line in log_lines).encode(),
    )


# The log of a recording.


def test_the_log_of_a_recording(recording: Path) -> None:
    matched, data = of_file(recording, "log")
    first, *changes = data.decode().splitlines()
    assert matched
    assert first == "host: 2 sockets of 1 process"
    assert words("\n".join(changes).encode()) == ["open", "update", "close", "coverage"]


def test_a_recording_of_one_snapshot_has_a_line(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(b"".join(encoder.holdings(encoder.head("snapshot", 0, START), (ONE, TWO))))
    assert of_file(path, "log") == (True, b"host: 2 sockets of 1 process\n")


@pytest.mark.parametrize(("port", "expected"), [("1", True), ("9", False)])
def test_quiet_prints_nothing_of_a_recording(recording: Path, port: str, expected: bool) -> None:
    for output in ("ndjson", "log", "table"):
        assert of_file(recording, output, {"port": [port]}, quiet=True) == (expected, b"")


def test_quiet_does_not_read_on_after_a_match(tmp_path: Path, logged: list[str]) -> None:
    path = tmp_path / "recording"
    line = encoder.delta(Opened(ONE), 1, START)
    path.write_bytes(line * 600 + b"{no record}\n")
    assert of_file(path, "ndjson", quiet=True) == (True, b"")
    assert logged == []
    assert of_file(path, "ndjson", {"port": ["9"]}, quiet=True) == (False, b"")
    assert len(logged) == 1


# The state of a recording.


def test_the_state_at_the_end(recording: Path, logged: list[str]) -> None:
    matched, data = of_file(recording, "json")
    assert matched
    found = json.loads(data)
    assert [(one["local_port"], one["fds"]) for one in found] == [(1, [3, 4]), (2, [3])]
    assert {one["time"] for one in found} == {"2023-11-14T22:13:24.000000Z"}
    assert logged == []


def test_the_table_of_a_recording(recording: Path) -> None:
    matched, data = of_file(recording, "table", {"port": ["2"]})
    assert matched
    header, row = data.decode().splitlines()
    assert header.startswith("PROCESS")
    assert "127.0.0.1:2" in row


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("22:13:20", [1, 2]),
        ("22:13:21", [1, 2, 3]),
        ("-3s", [1, 2, 3]),
        ("-1s", [1, 2]),
        ("2023-11-14T22:13:22Z", [1, 2, 3]),
    ],
)
def test_the_state_at_a_time(recording: Path, at: str, expected: list[int]) -> None:
    matched, data = of_file(recording, "json", at=at)
    assert (matched, ports(data)) == (True, expected)


def test_the_records_at_a_time_are_those_of_a_snapshot(recording: Path) -> None:
    _, data = of_file(recording, "ndjson", at="22:13:21")
    found = records(data)
    assert [(one["event"], one["local_port"]) for one in found] == [
        ("snapshot", 1), ("snapshot", 2), ("snapshot", 3)
    ]  # fmt: skip
    assert {one["time"] for one in found} == {"2023-11-14T22:13:21.000000Z"}


def test_the_records_have_the_time_that_is_shown(recording: Path) -> None:
    _, data = of_file(recording, "ndjson", at="22:13:21.5")
    assert {one["time"] for one in records(data)} == {"2023-11-14T22:13:21.500000Z"}


@pytest.fixture
def five_hours_ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-5")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("five_hours_ahead")
@pytest.mark.parametrize(("utc", "at"), [(True, "22:13:21"), (False, "03:13:21")])
def test_a_time_without_a_zone_is_local_or_utc(recording: Path, utc: bool, at: str) -> None:
    chosen = config(read=str(recording), utc=utc, at=at)
    _, data = printed(RecordingOutput(str(recording), chosen, "json", UTC))
    assert ports(data) == [1, 2, 3]


def test_a_pipe_is_read_twice_for_a_time(tmp_path: Path) -> None:
    """The first time for the end of the recording, from which the time counts."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(DATA,), daemon=True)
    writer.start()
    _, data = of_file(path, "json", at="-3s")
    writer.join()
    assert ports(data) == [1, 2, 3]


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("2023-11-14T22:13:19Z", "is before the recording"),
        ("2023-11-14T22:13:25Z", "is after the recording"),
        ("22:13:25", "22:13:25 is not in the recording, which is from 2023-11-14T22:13:20"),
        ("soon", "'soon' is not a time"),
    ],
)
def test_a_time_that_the_recording_has_not(recording: Path, at: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        of_file(recording, "table", at=at)


@pytest.mark.parametrize("output", ["table", "csv", "pid"])
def test_one_moment_has_no_changes(recording: Path, output: str) -> None:
    with pytest.raises(UsageError, match="one moment has no changes; use -o log"):
        of_file(recording, output, {"event": ["open"]})


def test_an_empty_recording(tmp_path: Path, logged: list[str]) -> None:
    path = tmp_path / "recording"
    path.write_bytes(b"")
    assert of_file(path, "ndjson") == (False, b"")
    assert of_file(path, "log") == (False, b"")
    assert of_file(path, "json") == (False, b"[]\n")
    assert logged == ["warning: the recording has no records"]
    with pytest.raises(UsageError, match="no records"):
        of_file(path, "json", at="-1s")


def test_a_recording_that_is_not_there(tmp_path: Path) -> None:
    for output in ("ndjson", "log", "table"):
        with pytest.raises(RuntimeFailure, match="No such file"):
            of_file(tmp_path / "none", output)


@pytest.mark.parametrize("output", ["ndjson", "log", "json"])
def test_several_hosts(tmp_path: Path, output: str) -> None:
    path = tmp_path / "recording"
    pairs = zip(churn("a").splitlines(), churn("b").splitlines(), strict=True)
    path.write_bytes(b"".join(line + b"\n" for pair in pairs for line in pair))
    matched, data = of_file(path, output)
    assert matched
    if output == "log":
        lines = data.decode().splitlines()
        assert lines[:2] == ["a: 2 sockets of 1 process", "b: 2 sockets of 1 process"]
        assert len(lines) == 10
        return
    if output == "json":
        held = [(one["host"], one["local_port"]) for one in json.loads(data)]
        assert held == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
        return
    assert data == path.read_bytes()


VIEWS = [
    (output, at)
    for output in ("ndjson", "json", "log", "summary", "table", "wide", "csv", "pid")
    for at in (None, "2023-11-14T22:13:21Z")
    if at is None or output != "log"
]


@pytest.mark.parametrize(("output", "at"), VIEWS)
def test_the_files_of_a_fleet_are_shown_as_one(
    tmp_path: Path, logged: list[str], output: str, at: str | None
) -> None:
    lines = (churn("a") + churn("b", START + 3600)).splitlines(keepends=True)
    whole, directory = tmp_path / "whole.ndjson", tmp_path / "record"
    whole.write_bytes(b"".join(lines))
    directory.mkdir()
    for hour, part in enumerate((lines[:3], lines[3:9], lines[9:])):
        (directory / file_name(START + 3600 * hour)).write_bytes(b"".join(part))
    shown = of_file(directory, output, at=at)
    assert shown == of_file(whole, output, at=at)
    assert shown[1]
    assert logged == []


@pytest.mark.parametrize("output", ["ndjson", "log", "json"])
def test_the_filter_of_hosts(tmp_path: Path, output: str) -> None:
    path = tmp_path / "recording"
    path.write_bytes(churn("a") + churn("b"))
    matched, data = of_file(path, output, {"host": ["b*"]})
    assert matched
    if output == "json":
        assert [one["host"] for one in json.loads(data)] == ["b", "b"]
    elif output == "ndjson":
        assert data == churn("b")
    else:
        lines = data.decode().splitlines()
        assert lines[0] == "b: 2 sockets of 1 process"
        assert len(lines) == 5
    assert of_file(path, output, {"host": ["c"]})[0] is False


# Damage.


@pytest.mark.parametrize("output", ["ndjson", "log", "json"])
def test_damaged_lines_are_left_out_and_warned_of(
    tmp_path: Path, logged: list[str], output: str
) -> None:
    lines = DATA.splitlines(keepends=True)
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    whole.write_bytes(DATA)
    damaged.write_bytes(b"".join([*lines[:5], b"{no record}\n", *lines[5:], b'{"event":']))
    assert of_file(damaged, output) == of_file(whole, output)
    first, second = logged
    assert first.startswith("warning: line 6 is not a record: ")
    assert second == f"warning: cut off in line {len(lines) + 2}"


@pytest.mark.parametrize("output", ["ndjson", "log", "json"])
def test_compressed_data_that_is_cut_off(tmp_path: Path, logged: list[str], output: str) -> None:
    path = tmp_path / "recording.gz"
    path.write_bytes(gzip.compress(DATA)[:-4])
    assert of_file(path, output)[0]
    assert logged == [f"warning: {path}: the compressed data is cut off"]


def test_lost_changes_are_warned_of(tmp_path: Path, logged: list[str]) -> None:
    path = tmp_path / "recording"
    source = Source(history_records=1)
    source.poll(ONE)
    subscription = source.feed.subscribe()
    data = b"".join(iter(subscription.take, None))
    source.poll(ONE, TWO)
    source.poll(ONE, TWO, THREE)
    path.write_bytes(data + b"".join(iter(subscription.take, None)))
    assert ports(of_file(path, "json")[1]) == [1, 2, 3]
    assert logged == ["warning: host: lost 1 range of changes"]
