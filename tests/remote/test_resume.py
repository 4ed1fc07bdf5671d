import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.remote import resume as resume_module
from agent.remote.resume import InvalidFeed, ResumePosition


def line(event: str, seq: int, **more: Any) -> bytes:
    return (
        json.dumps({"event": event, "seq": seq, "time": "t", "host": "h", **more}).encode() + b"\n"
    )


def hello(seq: int, epoch: str = "e", *, resumed: bool = False) -> bytes:
    return line("hello", seq, epoch=epoch, resumed=resumed)


@pytest.fixture
def position() -> ResumePosition:
    """A position after a whole snapshot at seq 5."""
    position = ResumePosition()
    for message in (hello(5), line("snapshot", 5) + line("snapshot_end", 5)):
        assert position.pass_on(message, is_first=message == hello(5)) == message
    return position


def test_a_new_position_cannot_resume() -> None:
    assert list(ResumePosition().resume) == []


def test_after_a_whole_snapshot_the_stream_can_resume(position: ResumePosition) -> None:
    assert list(position.resume) == [("e", 5)]


def test_control_characters_of_an_agent_are_escaped(position: ResumePosition) -> None:
    raw = json.dumps(
        {"event": "open", "seq": 6, "host": "h", "comm": "\x7f\x9bé"}, ensure_ascii=False
    )
    assert position.pass_on(f"{raw}\n".encode(), is_first=False) == (
        '{"event": "open", "seq": 6, "host": "h", "comm": "\\u007f\\u009bé"}\n'.encode()
    )


def test_deltas_and_heartbeats_advance_the_position(position: ResumePosition) -> None:
    position.pass_on(line("open", 6) + line("close", 9), is_first=False)
    assert list(position.resume) == [("e", 9)]
    position.pass_on(line("heartbeat", 12), is_first=False)
    assert list(position.resume) == [("e", 12)]


def test_half_a_snapshot_cannot_be_resumed() -> None:
    position = ResumePosition()
    position.pass_on(hello(5), is_first=True)
    assert list(position.resume) == []
    position.pass_on(line("snapshot", 5), is_first=False)
    assert list(position.resume) == []


def test_without_snapshots_hello_is_enough_to_resume() -> None:
    position = ResumePosition(snapshots=False)
    position.pass_on(hello(5), is_first=True)
    assert list(position.resume) == [("e", 5)]


def test_a_resumed_stream_has_no_gap(position: ResumePosition) -> None:
    message = hello(5, resumed=True)
    assert position.pass_on(message, is_first=True) == message
    assert list(position.resume) == [("e", 5)]


def first_record(passed: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(passed.splitlines()[0])
    return record


def test_a_gap_is_reported_as_lost(position: ResumePosition) -> None:
    passed = position.pass_on(hello(20), is_first=True)
    lost = first_record(passed)
    assert (lost["event"], lost["from"], lost["to"], lost["seq"]) == ("lost", 6, 20, 20)
    assert passed.endswith(hello(20))
    assert list(position.resume) == []  # Until the snapshot is complete.
    position.pass_on(line("snapshot_end", 20), is_first=False)
    assert list(position.resume) == [("e", 20)]


def test_the_end_of_a_gap_in_another_epoch_is_unknown(position: ResumePosition) -> None:
    lost = first_record(position.pass_on(hello(2, "another"), is_first=True))
    assert (lost["event"], lost["from"], lost["to"], lost["seq"]) == ("lost", 6, None, 2)


def test_a_new_stream_at_the_same_number_lost_nothing(position: ResumePosition) -> None:
    assert position.pass_on(hello(5), is_first=True) == hello(5)


def test_after_lost_of_the_agent_a_snapshot_is_needed(position: ResumePosition) -> None:
    position.pass_on(line("lost", 30, **{"from": 6, "to": 30}), is_first=False)
    assert list(position.resume) == []
    position.pass_on(line("snapshot", 30), is_first=False)
    position.pass_on(line("snapshot_end", 30), is_first=False)
    assert list(position.resume) == [("e", 30)]


@pytest.mark.parametrize(
    "message",
    [b"", b"\n", b"{}", b"[]", b"1", b"hello", b"\xff", line("open", 1), b'{"event":"hello"}\n',
     hello(5).replace(b"5", b'"5"')],
)  # fmt: skip
def test_an_invalid_first_message_is_rejected(message: bytes) -> None:
    with pytest.raises(InvalidFeed):
        ResumePosition().pass_on(message, is_first=True)


@pytest.mark.parametrize(
    "message",
    [line("open", 6) + b"garbage\n" + line("open", 7), line("open", 6) + b'{"event":1,"seq":7}\n',
     b'{"event":"open","seq":true,"host":"h"}\n', b'{"event":"open","seq":7,"host":1}\n',
     line("open", 6).replace(b'"h"', b'"other"')],
)  # fmt: skip
def test_an_invalid_record_is_rejected(position: ResumePosition, message: bytes) -> None:
    with pytest.raises(InvalidFeed):
        position.pass_on(message, is_first=False)


def test_a_missing_newline_is_added(position: ResumePosition) -> None:
    assert position.pass_on(line("open", 6).rstrip(), is_first=False) == line("open", 6)


def test_hello_within_a_connection_starts_anew(position: ResumePosition) -> None:
    position.pass_on(line("open", 6), is_first=False)
    assert first_record(position.pass_on(hello(8), is_first=False))["event"] == "lost"
    assert list(position.resume) == []
    position.pass_on(line("snapshot_end", 8), is_first=False)
    assert list(position.resume) == [("e", 8)]


@given(st.lists(st.binary()))
def test_arbitrary_bytes_raise_nothing_else(messages: list[bytes]) -> None:
    position = ResumePosition()
    position.pass_on(hello(1), is_first=True)
    for message in messages:
        with suppress(InvalidFeed):
            position.pass_on(message, is_first=False)


# A relay: several hosts in one connection.


def of(host: str, record: bytes) -> bytes:
    return record.replace(b'"h"', f'"{host}"'.encode())


def test_each_host_of_a_relay_has_a_position() -> None:
    position = ResumePosition()
    sent = [
        of("a", hello(5, "e")),
        of("b", hello(7, "f")),
        of("a", line("snapshot_end", 5)),
        of("b", line("snapshot_end", 7)),
        of("b", line("open", 8)),
    ]
    for number, message in enumerate(sent):
        assert position.pass_on(message, is_first=number == 0) == message
    assert list(position.resume) == [("e", 5), ("f", 8)]
    assert position.hosts == ["a", "b"]
    resumed = of("b", hello(8, "f", resumed=True))
    assert position.pass_on(resumed, is_first=True) == resumed
    with pytest.raises(InvalidFeed):  # Its hello has not come yet.
        position.pass_on(of("a", line("open", 6)), is_first=False)


def test_what_is_lost_behind_a_relay_is_reported_for_its_host() -> None:
    position = ResumePosition()
    for number, host in enumerate("ab"):
        position.pass_on(of(host, hello(5, host)), is_first=not number)
        position.pass_on(of(host, line("snapshot_end", 5)), is_first=False)
    passed = position.pass_on(of("b", hello(2, "new")), is_first=False)
    lost = first_record(passed)
    assert (lost["event"], lost["host"], lost["from"], lost["to"]) == ("lost", "b", 6, None)
    assert list(position.resume) == [("a", 5)]
    position.pass_on(of("b", line("snapshot_end", 2)), is_first=False)
    assert list(position.resume) == [("a", 5), ("new", 2)]


def test_the_number_of_hosts_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume_module, "MAX_HOSTS", 2)
    position = ResumePosition()
    position.pass_on(of("a", hello(1)) + of("b", hello(1)), is_first=True)
    with pytest.raises(InvalidFeed):
        position.pass_on(of("c", hello(1)), is_first=False)
