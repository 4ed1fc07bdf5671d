"""The faults of bench.fleet: as many as wanted, each while its process runs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.fleet.plan import BROKER, END_SECONDS, Fault, Wanted, plan, summary

KINDS = {
    "agent": ["a", "b", "c"], "publisher": ["p", "q", "r"], BROKER: [BROKER],
    "consumer": ["x", "y"],
}  # fmt: skip


@given(st.integers(0, 2**32), st.integers(0, 4), st.sampled_from([0.0, 10.0]))
def test_a_process_has_one_fault_at_a_time(seed: int, older: int, outage: float) -> None:
    wanted = Wanted(26, 4, older, outage)
    events = plan(seed, 130.0, KINDS, wanted)
    assert events == plan(seed, 130.0, KINDS, wanted)
    counts = Counter(event.fault for event in events)
    assert (counts[Fault.KILL], counts[Fault.RESTART], counts[Fault.OLDER]) == (26, 4, older)
    assert counts[Fault.OUTAGE] == (outage > 0)
    ends: dict[str, float] = {}
    for event in events:
        assert event.time > ends.get(event.name, 0.0)
        ends[event.name] = event.time + event.down
        assert ends[event.name] <= 130.0 - END_SECONDS


def test_each_kind_is_killed() -> None:
    for seed in range(20):
        names = {event.name for event in plan(seed, 30.0, KINDS, Wanted(6, 1))}
        assert all(names & set(kind) for kind in KINDS.values())
    assert summary(plan(1, 30.0, {BROKER: [BROKER]}, Wanted(2)), KINDS) == "2 kill -9 of brokers"


def test_more_faults_than_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="too many faults"):
        plan(1, 12.0, {BROKER: [BROKER]}, Wanted(50))
