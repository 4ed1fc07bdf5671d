import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.remote.resume import InvalidFeed, ResumePosition


def line(event: str, seq: int, **more: Any) -> bytes:
    return (
        json.dumps({"event": event, "seq": seq, "time": "t", "host": "h", **more}).encode() + b"\n"
    )


def hello(seq: int, epoch: str = "e", *, resumed: bool = False) -> bytes:
    return line("hello", seq, epoch=epoch, resumed=resumed)


@pytest.fixture
def position() -> ResumePosition:
    """One that has seen a whole snapshot, at seq 5."""
    position = ResumePosition()
    position.connected()
    for message in (hello(5), line("snapshot", 5) + line("snapshot_end", 5)):
        assert position.take(message) == message
    return position


def test_it_begins_anew() -> None:
    assert ResumePosition().resume is None


def test_a_whole_snapshot_can_be_gone_on_from(position: ResumePosition) -> None:
    assert position.resume == ("e", 5)


def test_control_characters_of_an_agent_are_escaped(position: ResumePosition) -> None:
    raw = json.dumps({"event": "open", "seq": 6, "comm": "\x7f\x9bé"}, ensure_ascii=False)
    assert position.take(f"{raw}\n".encode()) == (
        '{"event": "open", "seq": 6, "comm": "\\u007f\\u009bé"}\n'.encode()
    )


def test_each_delta_moves_it(position: ResumePosition) -> None:
    position.take(line("open", 6) + line("close", 9))
    assert position.resume == ("e", 9)
    position.take(line("heartbeat", 12))
    assert position.resume == ("e", 12)


def test_half_a_snapshot_cannot() -> None:
    position = ResumePosition()
    position.connected()
    position.take(hello(5))
    assert position.resume is None
    position.take(line("snapshot", 5))
    assert position.resume is None


def test_without_snapshots_the_greeting_is_enough() -> None:
    position = ResumePosition(snapshots=False)
    position.connected()
    position.take(hello(5))
    assert position.resume == ("e", 5)


def test_a_resumed_stream_goes_on(position: ResumePosition) -> None:
    position.connected()
    message = hello(5, resumed=True)
    assert position.take(message) == message
    assert position.resume == ("e", 5)


def told(passed: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(passed.splitlines()[0])
    return record


def test_a_gap_is_told(position: ResumePosition) -> None:
    position.connected()
    passed = position.take(hello(20))
    lost = told(passed)
    assert (lost["event"], lost["from"], lost["to"], lost["seq"]) == ("lost", 6, 20, 20)
    assert passed.endswith(hello(20))
    assert position.resume is None  # Until the snapshot is whole.
    position.take(line("snapshot_end", 20))
    assert position.resume == ("e", 20)


def test_how_much_an_agent_told_that_has_ended_is_not_known(position: ResumePosition) -> None:
    position.connected()
    lost = told(position.take(hello(2, "another")))
    assert (lost["event"], lost["from"], lost["to"], lost["seq"]) == ("lost", 6, None, 2)


def test_where_nothing_happened_nothing_was_lost(position: ResumePosition) -> None:
    position.connected()
    assert position.take(hello(5)) == hello(5)


def test_what_the_agent_lost_needs_its_snapshot(position: ResumePosition) -> None:
    position.take(line("lost", 30, **{"from": 6, "to": 30}))
    assert position.resume is None
    position.take(line("snapshot", 30))
    position.take(line("snapshot_end", 30))
    assert position.resume == ("e", 30)


@pytest.mark.parametrize(
    "message",
    [b"", b"\n", b"{}", b"[]", b"1", b"hello", b"\xff", line("open", 1), b'{"event":"hello"}\n',
     hello(5).replace(b"5", b'"5"')],
)  # fmt: skip
def test_what_is_no_stream(message: bytes) -> None:
    position = ResumePosition()
    position.connected()
    with pytest.raises(InvalidFeed):
        position.take(message)


@pytest.mark.parametrize(
    "message",
    [line("open", 6) + b"garbage\n" + line("open", 7), line("open", 6) + b'{"event":1,"seq":7}\n',
     b'{"event":"open","seq":true}\n'],
)  # fmt: skip
def test_what_is_no_record_is_not_passed_on(position: ResumePosition, message: bytes) -> None:
    with pytest.raises(InvalidFeed):
        position.take(message)


def test_a_message_ends_its_last_line(position: ResumePosition) -> None:
    assert position.take(line("open", 6).rstrip()) == line("open", 6)


def test_an_agent_whose_filters_changed_begins_anew(position: ResumePosition) -> None:
    position.take(line("open", 6))
    assert told(position.take(hello(8)))["event"] == "lost"
    assert position.resume is None
    position.take(line("snapshot_end", 8))
    assert position.resume == ("e", 8)


@given(st.lists(st.binary()))
def test_no_bytes_raise_anything_else(messages: list[bytes]) -> None:
    position = ResumePosition()
    position.connected()
    position.take(hello(1))
    for message in messages:
        with suppress(InvalidFeed):
            position.take(message)
