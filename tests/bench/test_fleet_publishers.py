"""The records of simulated hosts are those of a feed."""

from __future__ import annotations

from agent.stream.state import State
from bench.fleet.publishers import Records, chunk_of, lines_of
from tests.relaying import decoded


def test_prepared_records_are_a_stream_without_gaps() -> None:
    records = Records(10, "e")
    state, seq = State(), 7
    for lines in records.snapshot:
        for record in decoded(chunk_of(lines, seq, 0, b"2026-01-01T00:00:00.000Z", b"a")):
            assert (record.host, record.seq) == ("a", seq)
            state.apply(record)
    assert len(state) == 50
    for lines in records.polls:
        found = decoded(chunk_of(lines, seq + 1, 1, b"2026-01-01T00:00:00.000Z", b"a"))
        assert [record.seq for record in found] == list(range(seq + 1, seq + 11))
        seq += 10
        for record in found:
            state.apply(record)
    assert not state.violations


def test_records_of_another_host_differ_in_their_head_alone() -> None:
    (line,) = lines_of(b'{"event":"open","seq":3,"time":"x","host":"a","proto":"tcp"}\n')
    assert chunk_of([line], 9, 1, b"y", b"b") == (
        b'{"event":"open","seq":9,"time":"y","host":"b","proto":"tcp"}\n'
    )
