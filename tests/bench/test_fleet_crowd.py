"""bench.fleet --hosts counts what the consumer prints."""

from __future__ import annotations

import json

import pytest

from agent.stream.times import timestamp
from bench.fleet.crowd import Reader


def line(event: str, host: str, seq: int, time: float) -> bytes:
    record = {"event": event, "host": host, "seq": seq, "time": timestamp(time)}
    return json.dumps(record).encode() + b"\n"


def test_changes_are_counted_and_delays_taken_once_a_poll() -> None:
    reader = Reader()
    output = b"".join([
        line("hello", "a", 3, 1.0), line("snapshot_end", "a", 3, 1.0),
        line("open", "a", 4, 2.0), line("close", "a", 5, 2.0), line("heartbeat", "a", 5, 3.0),
        line("hello", "b", 0, 3.0), line("open", "b", 1, 4.0),
    ])  # fmt: skip
    for begin in range(0, len(output), 7):
        reader.read(output[begin : begin + 7], 5.0)
    seen = reader.take()
    assert (seen.records, seen.gaps, seen.losses) == (3, 0, 0)
    assert seen.delays == pytest.approx([3.0, 1.0])
    assert reader.hosts == {"a": 5, "b": 1}
    assert reader.take().records == 0


@pytest.mark.parametrize("seq", [4, 6])
def test_a_missing_or_doubled_change_is_a_gap(seq: int) -> None:
    reader = Reader()
    reader.read(line("hello", "a", 3, 1.0) + line("open", "a", 4, 2.0), 5.0)
    reader.read(line("open", "a", seq, 2.0) + line("lost", "a", 9, 2.0), 5.0)
    seen = reader.take()
    assert (seen.gaps, seen.losses) == (1, 1)
