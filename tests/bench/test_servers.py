"""bench.servers finds each kind of error in recorded streams, and no other."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bench.servers.stream import Report, Stream
from bench.servers.truth import (
    End,
    Truth,
    give_notices,
    key_of,
    match,
    score,
)

NOON = "2026-11-24T12:00:0{}.000000Z"


def line(event: str, seq: int, second: int = 0, **fields: object) -> bytes:
    record = {
        "event": event,
        "seq": seq,
        "time": NOON.format(second),
        "pid": 7,
        "inode": 1,
        "proto": "tcp",
        "state": "ESTABLISHED",
        "local_addr": "127.0.0.1",
        "local_port": 40000,
        "remote_addr": "127.0.0.1",
        "remote_port": 80,
        "netns": 1,
        "reason": "closed",
        "duration_ms": None,
        "count": 0,
    }
    return orjson.dumps({**record, **fields}) + b"\n"


START = line("hello", 0) + line("snapshot_end", 0)
SHORT_LIVED: dict[str, Any] = {"pid": None, "inode": None}


def stream_of(*lines: bytes) -> Stream:
    stream = Stream()
    stream.feed(START + b"".join(lines))
    stream.finish()
    return stream


def test_a_correct_stream_has_no_violations() -> None:
    stream = stream_of(
        line("open", 1),
        line("update", 2, remote_port=81),
        line("close", 3, 1, remote_port=81, duration_ms=1000),
        line("open", 4, 1, **SHORT_LIVED),
        line("close", 5, 1, **SHORT_LIVED),
        line("heartbeat", 5, 2, late_polls=3),
    )
    assert not stream.violations
    assert [(one.remote[1], one.short_lived) for one in stream.reports] == [(81, False), (80, True)]
    assert stream.reports[0].duration_ms == 1000
    assert stream.late_polls == 3


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([line("open", 1), line("open", 2)], "open of what is open"),
        ([line("close", 1)], "close of what is not open"),
        ([line("close", 1, **SHORT_LIVED)], "close of what is not open"),
        ([line("update", 1)], "update of what is not open"),
        ([line("open", 2)], "seq does not grow by one"),
        ([line("open", 1), line("close", 1)], "seq does not grow by one"),
        ([line("open", 1, **SHORT_LIVED)], "short-lived open without its close"),
        (
            [line("open", 1, **SHORT_LIVED), line("close", 2, local_port=1, **SHORT_LIVED)],
            "close of another short-lived socket",
        ),
        ([line("snapshot_end", 0, count=1)], "snapshot_end with another count"),
        ([line("open", 1), line("close", 2, duration_ms=-1)], "negative duration"),
    ],
)
def test_each_broken_guarantee_is_a_violation(lines: list[bytes], what: str) -> None:
    assert dict(stream_of(*lines).violations) == {what: 1}


def test_sockets_held_when_records_are_lost_continue_in_the_next_snapshot() -> None:
    stream = stream_of(
        line("open", 1),
        line("open", 2, inode=2),
        line("lost", 9, **{"from": 3, "to": 9}),
        line("snapshot", 9, 1),
        line("snapshot_end", 9, 1, count=1),
        line("close", 10, 2),
    )
    assert not stream.violations
    assert [one.reason for one in stream.reports] == ["closed", "lost"]


KEY = key_of("tcp", 40000, 80)


def end(begin: float, ended: float, pid: int = 7) -> End:
    return End("client", KEY, begin, ended, frozenset({pid}), ("127.0.0.1", 40000), None)


def report(
    opened: float, closed: float, *, pid: int | None = 7, inode: int | None = 1, address: str = ""
) -> Report:
    local, remote = (address or "127.0.0.1", 40000), ("127.0.0.1", 80)
    made = Report(pid, inode, "tcp", local, remote, None, None, None, 1, opened)
    made.short_lived, made.closed, made.reason = inode is None, closed, "closed"
    return made


def scored(ends: list[End], *reports: Report) -> tuple[dict[str, int], int]:
    """Return the counts of the score that are not zero, and the number of reports of no end."""
    truth = Truth(len(ends), ends, frozenset({("tcp", 80)}))
    unmatched = match(truth, [], sorted(reports, key=lambda one: one.opened or 0.0))
    result = score(ends, 0.1)["client"]
    names = ("once", "never", "duplicate", "right", "null", "wrong", "ghosts", "short_lived_long")
    return {name: getattr(result, name) for name in names if getattr(result, name)}, len(unmatched)


def test_an_end_reported_once_with_its_process_is_right() -> None:
    assert scored([end(1, 2)], report(1.05, 2.05)) == ({"once": 1, "right": 1}, 0)


def test_an_end_without_a_report_is_never() -> None:
    assert scored([end(1, 2)]) == ({"never": 1}, 0)


def test_a_report_of_another_process_is_wrong() -> None:
    assert scored([end(1, 2)], report(1.05, 2.05, pid=8)) == ({"once": 1, "wrong": 1}, 0)


def test_a_report_without_a_process_after_the_end_is_a_ghost_and_a_duplicate() -> None:
    ghost = report(2.1, 2.3, pid=None)
    counts = {"duplicate": 1, "right": 1, "ghosts": 1}
    assert scored([end(1, 2)], report(1.05, 2.05), ghost) == (counts, 0)


def test_a_short_lived_report_of_a_long_connection_is_counted() -> None:
    short_lived = report(2.05, 2.05, pid=None, inode=None)
    assert scored([end(1, 2)], short_lived) == ({"once": 1, "null": 1, "short_lived_long": 1}, 0)


def test_a_report_before_all_ends_with_its_ports_is_unmatched() -> None:
    assert scored([end(3, 4)], report(1, 2)) == ({"never": 1}, 1)


def test_reused_ports_are_distinguished_by_time() -> None:
    ends = [end(1, 2, 7), end(4, 5, 8), end(7, 7.01, 9)]
    reports = [report(1.05, 2.05), report(4.05, 5.05, pid=8)]
    short_lived = report(7.05, 7.05, pid=None, inode=None)
    assert scored(ends, *reports, short_lived) == ({"once": 3, "right": 2, "null": 1}, 0)


def test_an_unreported_end_gets_no_report_of_another_with_its_ports() -> None:
    ends = [end(1, 1.01), end(4, 4.01)]
    short_lived = report(1.1, 1.1, pid=None, inode=None)
    assert scored(ends, short_lived) == ({"once": 1, "never": 1, "null": 1}, 0)
    assert ends[0].reports == [short_lived]


def test_the_last_close_and_the_duration_are_measured() -> None:
    ends = [end(1, 2)]
    made = report(1.05, 2.25)
    made.duration_ms = 1500
    scored(ends, made)
    result = score(ends, 0.1)["client"]
    assert result.delays == [0.25]
    assert result.duration_errors == 1


def test_a_wrong_address_is_counted() -> None:
    ends = [end(1, 2)]
    scored(ends, report(1.05, 2.05, address="127.0.0.2"))
    assert score(ends, 0.1)["client"].wrong_address == 1


class Noticed:
    def __init__(self, time: float) -> None:
        self.time = time
        self.key = KEY


def test_notices_go_to_the_nearest_end_and_the_rest_is_returned() -> None:
    ends = [end(1, 2), end(4, 5)]
    given = [Noticed(2.01), Noticed(5.01), Noticed(9.0)]
    assert give_notices(ends, given) == given[2:]
    assert [one.noticed for one in ends] == [2.01, 5.01]
