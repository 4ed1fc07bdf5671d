"""Recordings, whole, compressed, damaged and cut off, and their state at a time."""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import RuntimeFailure, UsageError
from agent.model import Closed, Holding, Opened, Snapshot, Updated
from agent.stream import recording
from agent.stream.decoder import Decoded, decode
from agent.stream.encoder import Encoder
from agent.stream.recording import (
    Damage,
    RecordReader,
    open_recording,
    state_at,
    time_span,
)
from agent.stream.state import State
from agent.stream.times import Span

from ..feeding import AGENT, ONE, THREE, TWO, Source
from ..make import FULL_COVERAGE
from ..strategies import mutated, runs

START = 1_700_000_000.0
encoder = Encoder(AGENT)
other = Encoder(AGENT._replace(host="other"))


def churn() -> list[bytes]:
    """The lines of a recording of ten seconds: a snapshot, and changes of three sockets."""
    head = encoder.head("snapshot", 1, START)
    changed = ONE._replace(fds=(3, 4))
    return [
        encoder.hello(1, START, FULL_COVERAGE, resumed=False),
        *encoder.holdings(head, (ONE, TWO)),
        encoder.snapshot_end(1, START, 2),
        encoder.delta(Opened(THREE), 2, START + 1),
        encoder.delta(Updated(changed, ONE), 3, START + 2),
        # A poll at 4.0 reports both; an event showed when the first one happened.
        encoder.delta(Closed(THREE, "closed", 2.5, START + 3.5), 4, START + 4),
        encoder.delta(Closed(TWO, "closed", None), 5, START + 4),
        encoder.heartbeat(5, START + 10, Source().feed.stats.figures()),
    ]


LINES = churn()
DATA = b"".join(LINES)


def zstd(data: bytes) -> bytes:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    module = pytest.importorskip(name)
    compressed: bytes = module.compress(data)
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstd}


def held(state: State) -> list[Holding]:
    return [one.holding for one in state.holdings()]


def inodes(state: State) -> list[int]:
    return [one.socket.inode for one in held(state)]


def records() -> list[Decoded]:
    return [decode(line) for line in LINES]


# Files.


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_file_is_read_more_than_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"incident.ndjson{suffix}"
    path.write_bytes(COMPRESS[suffix](DATA))
    with open_recording(str(path)) as opened:
        assert list(opened) == LINES
        assert list(opened) == LINES
        assert opened.problem is None


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_recordings_one_after_the_other(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESS[suffix]
    path = tmp_path / f"both{suffix}"
    path.write_bytes(compress(DATA) + compress(DATA))
    with open_recording(str(path)) as opened:
        assert list(opened) == LINES * 2


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_recording_that_is_cut_off(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESS[suffix]
    path = tmp_path / f"cut{suffix}"
    # Data that does not compress well, so that several blocks are whole.
    lines = [b"%s\n" % os.urandom(500).hex().encode() for _ in range(2000)]
    path.write_bytes(compress(b"".join(lines))[:-2000])
    with open_recording(str(path)) as opened:
        found = list(opened)
        assert found
        assert found == lines[: len(found)]
        assert opened.problem == f"{path}: the compressed data is cut off"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_recording_that_is_damaged(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESS[suffix]
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(compress(DATA) + b"\x1f\x8b" + b"\0" * 100 if suffix == ".gz" else
                     compress(DATA) + b"no frame" * 10)  # fmt: skip
    with open_recording(str(path)) as opened:
        assert list(opened) == LINES
        assert opened.problem == f"{path}: the compressed data is damaged"


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_file_that_is_not_compressed(tmp_path: Path, suffix: str) -> None:
    if suffix == "zst":
        zstd(b"")
    path = tmp_path / f"plain.{suffix}"
    path.write_bytes(DATA)
    with (
        open_recording(str(path)) as opened,
        pytest.raises(RuntimeFailure, match=f"^{re.escape(str(path))}: not {suffix} data$"),
    ):
        list(opened)


def test_zstd_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, recording._ZSTD, None)
    with pytest.raises(RuntimeFailure) as raised:
        open_recording("incident.zst")
    assert str(raised.value) == (
        "incident.zst: reading .zst needs an extra; pip install 'sockagent[zstd]'"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "no recordings, which have names such as [*].ndjson"),
        ("none.ndjson", "No such file or directory"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, name: str, reason: str) -> None:
    path = os.path.join(tmp_path, name)
    with pytest.raises(RuntimeFailure, match=f"^{re.escape(path)}: {reason}$"):
        open_recording(path)


def test_a_path_with_a_nul() -> None:
    with pytest.raises(RuntimeFailure, match=r"is not a path$"):
        open_recording("a\0b")


@pytest.mark.parametrize("rereadable", [False, True])
def test_the_files_of_a_directory_are_one_recording(tmp_path: Path, rereadable: bool) -> None:
    (tmp_path / "2026-11-28T13Z.ndjson").write_bytes(b"".join(LINES[5:]) + b'{"cut')
    (tmp_path / "2026-11-28T12Z.ndjson").write_bytes(b"".join(LINES[3:5]))
    (tmp_path / "2026-11-28T11Z.ndjson.gz").write_bytes(gzip.compress(b"".join(LINES[:3])))
    (tmp_path / "position.json").write_text("{}")
    with open_recording(str(tmp_path), rereadable=rereadable) as opened:
        assert list(opened) == [*LINES, b'{"cut']
        (tmp_path / "2026-11-28T11Z.ndjson.gz").unlink()  # By a recorder with --keep.
        assert list(opened) == [*LINES[3:], b'{"cut']
    assert opened.problem is None


def test_a_damaged_file_of_a_directory_is_reported(tmp_path: Path) -> None:
    compressed = gzip.compress(DATA)
    for name, content in (("a", compressed), ("b", compressed[:-9]), ("c", compressed)):
        (tmp_path / f"{name}.ndjson.gz").write_bytes(content)
    with open_recording(str(tmp_path)) as opened:
        assert list(opened) == LINES * 3
        assert opened.problem == f"{tmp_path}/b.ndjson.gz: the compressed data is cut off"


@pytest.mark.parametrize("rereadable", [False, True])
def test_a_pipe(tmp_path: Path, rereadable: bool) -> None:
    reading, writing = os.pipe()
    os.write(writing, DATA)
    os.close(writing)
    with open_recording(f"/dev/fd/{reading}", rereadable=rereadable) as opened:
        os.close(reading)
        assert list(opened) == LINES
        assert list(opened) == (LINES if rereadable else [])


def test_stdin_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "incident"
    path.write_bytes(DATA)
    stdin = os.dup(0)
    try:
        with path.open("rb") as file:
            os.dup2(file.fileno(), 0)
        with open_recording("-", rereadable=True) as opened:
            assert list(opened) == LINES
            assert list(opened) == LINES
        assert os.fstat(0)
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)


def test_a_line_without_an_end_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "long"
    path.write_bytes(b"x" * 2500 + b"\n" + LINES[0])
    with open_recording(str(path)) as opened:
        reader = RecordReader(opened)
        assert list(reader) == [decode(LINES[0])]
    assert reader.damage == Damage(3, 1, "it is too long")


# Lines.


def test_damaged_lines_are_counted() -> None:
    reader = RecordReader([LINES[0], b"{}\n", b"\n", b"no\n", LINES[1]])
    assert list(reader) == [decode(LINES[0]), decode(LINES[1])]
    assert reader.damage == Damage(2, 2, "the field 'event' is missing")
    assert reader.cut_off is None
    assert reader.problems() == [
        "2 lines are not records; the first is line 2: the field 'event' is missing"
    ]


def test_one_damaged_line_and_a_last_one_that_is_cut_off() -> None:
    reader = RecordReader([b"no\n", LINES[0], LINES[1][:50]])
    assert list(reader) == [decode(LINES[0])]
    assert reader.problems() == ["line 1 is not a record: it is not JSON", "cut off in line 3"]
    # The next reading counts anew.
    assert list(reader) == [decode(LINES[0])]
    assert reader.damage == Damage(1, 1, "it is not JSON")


def test_a_last_line_without_an_end_that_is_a_record() -> None:
    reader = RecordReader([LINES[0][:-1]])
    assert list(reader) == [decode(LINES[0])]
    assert reader.problems() == []


@given(st.data())
def test_a_damaged_recording_never_fails(data: st.DataObject) -> None:
    lines = data.draw(mutated(DATA)).splitlines(keepends=True)
    reader = RecordReader(lines)
    found = list(reader)
    damaged = 0 if reader.damage is None else reader.damage.lines
    cut_off = reader.cut_off is not None
    blank = sum(line.isspace() and line.endswith(b"\n") for line in lines)
    assert len(found) + damaged + cut_off + blank == len(lines)
    state_at(found)


@given(at=st.integers(0, len(DATA)))
def test_a_recording_is_read_up_to_where_it_is_cut(at: int) -> None:
    reader = RecordReader(DATA[:at].splitlines(keepends=True))
    found = list(reader)
    assert found == records()[: len(found)]
    assert len(found) >= DATA[:at].count(b"\n")
    assert reader.damage is None


# The state at a time.


def test_the_span_of_a_recording() -> None:
    assert time_span(records()) == Span(START, START + 10)
    assert time_span([]) is None


@pytest.mark.parametrize(
    ("after", "left"),
    [
        (0, [1, 2]),
        (0.999, [1, 2]),
        (1, [1, 2, 3]),
        (3.499, [1, 2, 3]),
        (3.5, [1, 2]),
        (4, [1]),
        (10, [1]),
    ],
)
def test_the_state_at_a_time(after: float, left: list[int]) -> None:
    state = state_at(records(), START + after)
    assert inodes(state) == left
    assert state.violations == 0


def test_records_after_a_later_one_do_not_count() -> None:
    late = encoder.delta(Opened(THREE, START + 11), 6, START + 12)
    early = encoder.delta(Closed(ONE, "closed", None, START + 10.5), 7, START + 12)
    found = [*records(), decode(late), decode(early)]
    assert inodes(state_at(found, START + 10.7)) == [1]
    assert inodes(state_at(found, START + 11)) == [3]


def test_the_state_at_the_end() -> None:
    assert held(state_at(records())) == held(state_at(records(), START + 10))
    assert held(state_at([])) == []


def test_an_update_counts_from_its_time_on() -> None:
    before, after = (held(state_at(records(), START + at)) for at in (1.9, 2))
    assert (before[0].fds, after[0].fds) == ((3,), (3, 4))


def test_a_recording_of_several_hosts() -> None:
    late = [
        other.hello(0, START + 5, FULL_COVERAGE, resumed=False),
        *other.holdings(other.head("snapshot", 0, START + 5), [TWO]),
        other.snapshot_end(0, START + 5, 1),
    ]
    merged = [*records()[:-1], *map(decode, late), records()[-1]]
    assert [one.host for one in state_at(merged, START + 4.9).hosts()] == ["host"]
    both = state_at(merged, START + 5)
    assert [(one.host, one.holding.socket.inode) for one in both.holdings()] == [
        ("host", 1), ("other", 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (START - 1, "2023-11-14T22:13:19.000000Z is before the recording"),
        (START + 10.5, "2023-11-14T22:13:30.500000Z is after the recording"),
        (1e15, "1000000000000000 is after the recording"),
    ],
)
def test_a_time_that_the_recording_does_not_include(at: float, reason: str) -> None:
    with pytest.raises(UsageError) as raised:
        state_at(records(), at)
    assert raised.value.argument == "at"
    assert str(raised.value) == (
        f"{reason}, which is from 2023-11-14T22:13:20.000000Z to 2023-11-14T22:13:30.000000Z"
    )


def test_a_recording_without_records_includes_no_time() -> None:
    with pytest.raises(UsageError, match=r"^the recording has no records$"):
        state_at([], START)


def in_order(polls: Iterable[Snapshot]) -> list[Snapshot]:
    """Polls a second apart, of which no event tells."""
    return [
        poll._replace(time=START + at, event_times={}, ended={}) for at, poll in enumerate(polls)
    ]


@given(polls=runs())
def test_the_state_at_each_poll_is_that_of_the_feed(polls: list[Snapshot]) -> None:
    source = Source()
    subscription = None
    lines: list[bytes] = []
    states: list[list[int]] = []
    last = START
    for poll in in_order(polls):
        source.publish(poll)
        subscription = subscription or source.feed.subscribe()
        while chunk := subscription.take():
            lines += chunk.splitlines(keepends=True)
            last = poll.time
        states.append(sorted(inode for _, inode in poll.holdings))
    found = list(RecordReader(lines))
    for at, expected in enumerate(states):
        if START + at <= last:
            assert sorted(inodes(state_at(found, START + at))) == expected
    assert sorted(inodes(state_at(found))) == states[-1]
