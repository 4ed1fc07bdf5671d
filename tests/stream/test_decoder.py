"""What the encoder writes is read back; nothing else is read at all."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import __version__
from agent.model import INET_FAMILIES, Closed, Coverage, Holding, Opened, TcpFigures, Updated
from agent.remote.resume import ResumePosition
from agent.snapshot.stats import PollSummary
from agent.stream.decoder import (
    Alive,
    Began,
    Decoded,
    Dropped,
    Other,
    Present,
    SnapshotEnd,
    decode,
)
from agent.stream.diff import is_same
from agent.stream.encoder import Encoder, record_fields
from agent.stream.fields import DecodeError
from agent.stream.times import timestamp

from ..feeding import AGENT, UNTRACKED
from ..make import holding, process, tcp
from ..strategies import (
    big,
    changes,
    coverages,
    holdings,
    mutated,
    names,
    small,
    tcp_figures,
    times,
    unseen,
)

TIME = 1_700_000_000.25
HELD = holding(tcp(), process(exe="/bin/app", cmdline=("app", "-v")), (3, 5))
STATS = PollSummary(3, 1.5, 2.5, 0.5, 10.0, 20.0, 30.0, 1, 50, 49, 2)
stats = st.builds(PollSummary, *(small if kind is int else st.floats(0, 1e9)
                                 for kind in PollSummary.__annotations__.values()))  # fmt: skip
encoder = Encoder(AGENT)


def in_microseconds(time: float) -> float:
    """A time as a record has it."""
    return decode(encoder.heartbeat(0, time, STATS)).time


def written(held: Holding, *, change: bool = False) -> Holding:
    """A holding without what its record does not say."""
    socket = held.socket._replace(uid=None, cgroup_id=None, cookie=None)
    if socket.state != "LISTEN":
        socket = socket._replace(backlog=None)
    if socket.family not in INET_FAMILIES:
        socket = socket._replace(interface=None)
    if socket.family == "unix":
        socket = socket._replace(
            local_addr=None, local_port=None, remote_addr=None, remote_port=None
        )
    else:
        socket = socket._replace(path=None, type=None, peer_inode=None)
        held = held._replace(peer_pid=None)
    if not change or socket.inode or socket.proto != "tcp":
        held = held._replace(attribution=None)
    if held.process:
        started = in_microseconds(held.process.start_time)
        by = held.process._replace(uid=None, start_time=started, start_ticks=round(started * 100))
        held = held._replace(process=by)
    return held._replace(socket=socket)


@given(held=holdings | unseen, seq=big.filter(lambda seq: seq < 2**63), time=st.floats(0, 4e9))
def test_a_record_of_a_snapshot(held: Holding, seq: int, time: float) -> None:
    line = encoder.holding(encoder.head("snapshot", seq, time), held)
    found = decode(line)
    assert found == Decoded("host", seq, in_microseconds(time), Present(written(held)))
    assert timestamp(found.time) == timestamp(time)


@given(held=holdings | unseen, at=times)
def test_an_open(held: Holding, at: float | None) -> None:
    found = decode(encoder.delta(Opened(held, at), 5, TIME))
    time = TIME if at is None else in_microseconds(at)
    opened = Opened(written(held, change=True), None if at is None else time)
    assert found == Decoded("host", 5, time, opened)


@given(
    held=holdings | unseen, reason=st.sampled_from(["closed", "exited", "attributed", "filtered"]),
    milliseconds=st.none() | st.integers(0, 10**12), at=times, figures=st.none() | tcp_figures,
)  # fmt: skip
def test_a_close(
    held: Holding, reason: str, milliseconds: int | None, at: float | None,
    figures: TcpFigures | None,
) -> None:  # fmt: skip
    seconds = None if milliseconds is None else milliseconds / 1000
    found = decode(encoder.delta(Closed(held, reason, seconds, at, figures), 5, TIME)).value
    time = None if at is None else in_microseconds(at)
    if held.socket.proto != "tcp":
        figures = None
    assert found == Closed(written(held, change=True), reason, seconds, time, figures)


@given(change=changes(), at=times)
def test_an_update_has_what_was_before(change: tuple[Holding, Holding], at: float | None) -> None:
    now, was = change
    found = decode(encoder.delta(Updated(now, was, 1.0, at), 5, TIME)).value
    assert isinstance(found, Updated)
    assert found.holding == written(now)
    assert found.time == (None if at is None else in_microseconds(at))
    assert found.seconds is None
    before, expected = record_fields(found.before), record_fields(was)
    if found.before.socket.state == "LISTEN" and now.socket.state != "LISTEN":
        assert before["backlog"] is None
        expected["backlog"] = None
    tracked = record_fields(now).keys() - UNTRACKED | {"state"}
    assert {name: before[name] for name in tracked & before.keys()} == {
        name: expected[name] for name in tracked & before.keys()
    }
    assert before.keys() - UNTRACKED == expected.keys() - UNTRACKED


def test_an_update_of_a_listener_that_no_longer_listens() -> None:
    was = holding(tcp(state="LISTEN", backlog=5), fds=(3, 4))
    now = holding(tcp(state="CLOSE"))
    found = decode(encoder.delta(Updated(now, was), 5, TIME)).value
    assert isinstance(found, Updated)
    assert (found.before.socket.state, found.before.socket.backlog) == ("LISTEN", None)
    assert (found.before.fds, found.holding.fds) == ((3, 4), (3,))


@given(coverage=coverages, resumed=st.booleans(), oldest=st.integers(0, 7))
def test_records_of_the_stream(coverage: Coverage, resumed: bool, oldest: int) -> None:
    hello = decode(encoder.hello(7, TIME, coverage, resumed=resumed, oldest=oldest))
    began = Began(coverage, "epoch", resumed, __version__, "boot", 1.0, oldest)
    assert hello == Decoded("host", 7, TIME, began)
    assert decode(encoder.delta(coverage, 8, TIME)) == Decoded("host", 8, TIME, coverage)
    assert decode(encoder.snapshot_end(8, TIME, 3)).value == SnapshotEnd(3)
    assert decode(encoder.lost(9, TIME, 4, 9)).value == Dropped(4, 9)


@given(figures=stats)
def test_a_heartbeat(figures: PollSummary) -> None:
    assert decode(encoder.heartbeat(1, TIME, figures)).value == Alive(figures)


def test_a_heartbeat_without_figures() -> None:
    assert decode(encoder.heartbeat(1, TIME, None)).value == Alive(None)


def test_an_older_agent_does_not_say_what_it_can_resume() -> None:
    record = example("hello")
    del record["oldest"]
    began = decoded(record).value
    assert isinstance(began, Began)
    assert began.oldest is None


def test_the_lost_record_of_the_client_after_a_restart() -> None:
    position = ResumePosition()
    coverage = Coverage(1, 0, 1)
    position.pass_on(encoder.hello(4, TIME, coverage, resumed=False), is_first=True)
    other = Encoder(AGENT._replace(epoch="another"))
    chunk = position.pass_on(other.hello(9, TIME, coverage, resumed=False), is_first=True)
    assert decode(chunk.split(b"\n")[0]) == Decoded("host", 9, TIME, Dropped(5, None))


def test_sockets_of_one_process_share_it() -> None:
    head = encoder.head("snapshot", 1, TIME)
    lines = encoder.holdings(head, [holding(tcp(inode)) for inode in (1, 2)])
    one, two = (decode(line).value for line in lines)
    assert isinstance(one, Present)
    assert isinstance(two, Present)
    assert one.holding.process is two.holding.process


@pytest.mark.parametrize(("length", "is_kept"), [(10, True), (70_000, False)])
def test_long_command_lines_are_not_kept(length: int, is_kept: bool) -> None:
    first, _, again = [
        decoded(example("snapshot") | {"pid": pid, "cmdline": ["x" * length]}).value
        for pid in (1, 2, 1)
    ]
    assert isinstance(first, Present)
    assert isinstance(again, Present)
    assert first == again
    assert (first.holding.process is again.holding.process) == is_kept


def test_a_pid_that_is_used_again_is_another_process() -> None:
    head = encoder.head("snapshot", 1, TIME)
    was = holding(by=process(start_time=1_700_000_000.25))
    for start_time, same in ((1_700_000_000.25, True), (1_700_000_000.26, False)):
        now = holding(by=process(start_time=start_time))
        one, other = (decode(line).value for line in encoder.holdings(head, (was, now)))
        assert isinstance(one, Present)
        assert isinstance(other, Present)
        assert is_same(one.holding, other.holding) == same


def example(event: str) -> dict[str, Any]:
    lines = {
        "snapshot": encoder.holding(encoder.head("snapshot", 1, TIME), HELD),
        "update": encoder.delta(Updated(HELD, HELD._replace(fds=(3,))), 2, TIME),
        "close": encoder.delta(Closed(HELD, "closed", 1.0), 2, TIME),
        "coverage": encoder.delta(Coverage(1, 0, 1, ("gone",)), 3, TIME),
        "hello": encoder.hello(1, TIME, Coverage(1, 0, 1), resumed=False),
        "heartbeat": encoder.heartbeat(1, TIME, STATS),
        "lost": encoder.lost(2, TIME, 1, 2),
    }
    record: dict[str, Any] = json.loads(lines[event])
    return record


def decoded(record: dict[str, Any]) -> Decoded:
    return decode(json.dumps(record).encode())


def test_unknown_fields_and_events_are_tolerated() -> None:
    record = example("snapshot")
    assert decoded({**record, "new": {"a": [1]}}) == decoded(record)
    unknown = {"event": "sung", "seq": 1, "time": "2023-11-14T22:13:20.25Z", "host": "h", "x": 1}
    assert decoded(unknown) == Decoded("h", 1, TIME, Other("sung"))


# Fields that the value of a record does not have.
IGNORED = {"schema", "complete", "events"}
OPTIONAL = {"cmdline", "oldest"}


@pytest.mark.parametrize(
    "event", ["snapshot", "update", "close", "coverage", "hello", "heartbeat", "lost"]
)
def test_a_field_that_is_missing_or_of_another_type_is_named(event: str) -> None:
    record = example(event)
    for name in record.keys() - IGNORED:
        rest = {other: value for other, value in record.items() if other != name}
        if name not in OPTIONAL:
            with pytest.raises(DecodeError, match=f"^the field '{name}' is missing$"):
                decoded(rest)
        with pytest.raises(DecodeError, match=f"^the field '{name}' is not "):
            decoded({**record, name: {"a": 1} if name != "previous" else 1})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"pid": True}, "the field 'pid' is not a number"),
        ({"inode": 1.0}, "the field 'inode' is not a number or null"),
        ({"fds": [3, "5"]}, "the field 'fds' is not a list of numbers"),
        ({"pid": 0}, "the field 'pid' is not at least 1"),
        ({"pid": -1}, "the field 'pid' is not at least 1"),
        ({"fd_count": 1}, "the field 'fd_count' is not at least the length of 'fds'"),
        ({"cmdline": ["a", None]}, "the field 'cmdline' is not a list of texts"),
        ({"attribution": 1}, "the field 'attribution' is not text or null"),
        ({"time": "2026-11-28"}, "the field 'time' is not a time such as 2026-11-28T03:12:04Z"),
        ({"time": "0001-01-02T00:00:00Z"}, None),
        ({"time": "0001-01-02T00:00:00+00:01"}, "the field 'time' is not a time such as "),
        ({"time": "9999-12-30T23:59:59.999999Z"}, None),
        ({"time": "9999-12-30T23:59:59.999999-00:01"}, "the field 'time' is not a time such as "),
        ({"start_time": "9999-12-31T00:00:00Z"}, "the field 'start_time' is not a time such as "),
        ({"start_time": "soon"}, "the field 'start_time' is not a time such as "),
        ({"family": "unix"}, "the field 'path' is missing"),
        ({"family": ["unix"]}, "the field 'family' is not text or null"),
    ],
)
def test_wrong_values(changed: dict[str, Any], reason: str | None) -> None:
    record = example("snapshot") | changed
    if reason is None:
        assert decoded(record)
    else:
        with pytest.raises(DecodeError, match=f"^{reason}"):
            decoded(record)


@pytest.mark.parametrize("line", [b"", b"\n", b"{", b"[]", b"1", b"null", b"\xff", b'{"event":"'])
def test_what_is_no_record(line: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(line)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False,
                                                                            allow_infinity=False)
    | names | st.just("2023-11-14T22:13:20Z"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(st.data())
def test_garbage_raises_nothing_but_decode_errors(data: st.DataObject) -> None:
    record = example(data.draw(st.sampled_from(["snapshot", "update", "close", "hello", "lost"])))
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(record)), values, max_size=3))
    line = json.dumps(record | changed).encode()
    for one in (line, data.draw(mutated(line)), data.draw(st.binary(max_size=30))):
        with suppress(DecodeError):
            assert isinstance(decode(one), Decoded)
