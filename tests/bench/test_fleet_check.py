"""bench.fleet finds each kind of error in what consumers recorded, and no other."""

from __future__ import annotations

import itertools
import json

import pytest

from agent.model import Holding
from bench.fleet.check import Outcome, Truth, are_equal, check, gaps, table, whole_lines
from tests.feeding import ONE, THREE, TWO
from tests.make import key
from tests.make import snapshot as snapshot_of
from tests.relaying import Agent


def lines(chunk: bytes) -> list[bytes]:
    return chunk.splitlines()


def stream(agent: Agent, *polls: tuple[Holding, ...]) -> list[bytes]:
    """Return what a patient subscriber of an agent gets."""
    subscription = agent.feed.subscribe()
    found = []
    for holdings in ((), *polls):
        # As in reality, no two runs have changes of the same time.
        agent.publish(snapshot_of(*holdings)._replace(time=next(TIMES)))
        while chunk := subscription.take():
            found += lines(chunk)
    return found


def snapshot(agent: Agent) -> list[bytes]:
    subscription = agent.feed.subscribe()
    found = []
    while chunk := subscription.take():
        found += lines(chunk)
    return found


TIMES = itertools.count(1.7e9)
POLLS = (ONE,), (ONE, TWO), (TWO,), (TWO, THREE)
FIRST = Agent("a", "e1")
RUN = stream(FIRST, *POLLS)  # hello, snapshot_end, and the changes 1 to 4.
TRUTH = Truth([RUN], snapshot(FIRST))
CLEAN = Outcome(4, 0, 0, 0, 0, 0, 0, True, ())


def lost(first: int, last: int | None, seq: int = 0) -> bytes:
    record = {
        "event": "lost", "seq": seq, "time": "2026-01-01T00:00:00.000Z", "host": "a",
        "from": first, "to": last,
    }  # fmt: skip
    return json.dumps(record).encode()


def found(recorded: list[bytes], truth: Truth = TRUTH) -> Outcome:
    return check(truth, recorded)._replace(examples=())


def test_what_is_right_passes() -> None:
    outcome = found(RUN)
    assert outcome == CLEAN
    assert outcome.is_right
    assert found(RUN + snapshot(FIRST)) == CLEAN


def test_a_doubled_change_is_found() -> None:
    outcome = found([*RUN, RUN[-1]])
    assert (outcome.doubled, outcome.violations) == (1, 1)
    assert not outcome.is_right


@pytest.mark.parametrize("index", range(2, 6))
def test_a_change_that_is_missing_is_found(index: int) -> None:
    outcome = found(RUN[:index] + RUN[index + 1 :])
    assert outcome.silent == 1
    assert not outcome.is_right


def test_a_missing_end_is_found() -> None:
    outcome = found(RUN[:-1])
    assert (outcome.silent, outcome.is_equal) == (1, False)


def test_a_host_that_is_missing_is_found() -> None:
    outcome = found([])
    assert (outcome.silent, outcome.is_equal) == (4, False)


def test_changes_of_another_host_and_disorder_are_found() -> None:
    assert found([*RUN, RUN[-1].replace(b'"seq":4', b'"seq":9')]).foreign == 1
    assert found([*RUN[:2], RUN[3], RUN[2], *RUN[4:]]).foreign == 1


def test_a_state_that_differs_is_found() -> None:
    truth = Truth([RUN], snapshot(Agent("a", "e1")))
    assert not found(RUN, truth).is_equal


def test_states_may_differ_in_what_no_update_reports() -> None:
    queue, state = (ONE.socket._replace(**one) for one in ({"recv_q": 9}, {"state": "CLOSE"}))
    assert are_equal({key(ONE): ONE}, {key(ONE): ONE._replace(socket=queue)})
    assert not are_equal({key(ONE): ONE}, {key(ONE): ONE._replace(socket=state)})
    assert not are_equal({key(ONE): ONE}, {key(TWO): TWO})


def test_lost_covers_what_it_names_alone() -> None:
    again = snapshot(FIRST)[1:]
    assert found([*RUN[:3], lost(2, 4, 4), *again]) == CLEAN._replace(told=3, losses=1)
    assert found([*RUN[:3], lost(3, 4, 4), *again]).silent == 1
    assert found([*RUN[:3], lost(2, 3, 4), *again]).silent == 1
    # What was lost before is not covered by a record that begins too early.
    assert found([*RUN[:3], RUN[4], lost(1, 4, 4), *again]).silent == 1


def test_changes_before_the_first_snapshot_are_not_missing() -> None:
    assert found(snapshot(FIRST)) == CLEAN


def test_another_epoch_needs_lost_before_it() -> None:
    second = Agent("a", "e2")
    other = stream(second, *POLLS)
    truth = Truth([RUN, other], snapshot(second))
    told = found([*RUN[:-1], lost(4, None), *other], truth)
    assert told == CLEAN._replace(truth=8, told=1, losses=1)
    assert found([*RUN[:-1], *other], truth).silent == 1
    # The changes of the new epoch that its first snapshot includes.
    late = found([*RUN, lost(5, None), *snapshot(second)], truth)
    assert late == CLEAN._replace(truth=8, told=4, losses=1)
    assert found([*RUN, *snapshot(second)], truth).silent == 4


def test_an_epoch_of_which_nothing_was_read_is_told_with_the_one_before() -> None:
    second, third = Agent("a", "e2"), Agent("a", "e3")
    runs = [RUN, stream(second, *POLLS), stream(third, *POLLS)]
    truth = Truth(runs, snapshot(third))
    assert found([*RUN, lost(5, None), *runs[2]], truth) == CLEAN._replace(
        truth=12, told=4, losses=1
    )
    assert found([*RUN, *runs[2]], truth).silent == 4


def test_a_restarted_agent_goes_on_in_its_epoch() -> None:
    parts = [RUN[:4], [RUN[0].replace(b'"resumed":false', b'"resumed":true'), *RUN[4:]]]
    assert found(RUN, Truth(parts, snapshot(FIRST))) == CLEAN


def test_a_line_that_was_cut_does_not_count() -> None:
    assert whole_lines(b"1\n2\n3") == [b"1", b"2"]
    assert whole_lines(b"3") == []


def test_the_table_has_a_line_for_each_host() -> None:
    assert list(table([("c", "a", CLEAN)]))[2] == "| c | a | 4 | 0 | 0 | 0 | 0 | 0 | 0 | equal |"


SECOND = Agent("a", "e2")
KILLED = [*RUN, *stream(SECOND, (ONE,))]


def killed(read: int) -> Truth:
    """Return the truth of a reader that had so many records of the run that was killed."""
    return Truth([[*RUN[:read], *KILLED[len(RUN) :]]], snapshot(SECOND))


def test_changes_of_the_last_poll_before_a_kill_are_admitted() -> None:
    truth = killed(len(RUN) - 1)
    assert [truth.admit(KILLED), truth.admit(KILLED)] == [1, 0]
    assert found([*RUN, lost(5, None), *KILLED[len(RUN) :]], truth).is_right


@pytest.mark.parametrize(
    "truth",
    [
        Truth([RUN[:-1]], snapshot(FIRST)),  # Not known to have been killed.
        Truth([[*RUN[:-2], *RUN[-1:], *KILLED[len(RUN) :]]], snapshot(SECOND)),  # Before the last.
    ],
)
def test_other_changes_that_a_reader_lacks_are_not_admitted(truth: Truth) -> None:
    assert truth.admit(KILLED) == 0
    assert found(KILLED, truth).foreign > 0


def test_changes_of_one_poll_are_admitted() -> None:
    truth = killed(len(RUN) - 2)  # Two polls of one change each.
    assert truth.admit(KILLED) == 1
    assert found(KILLED, truth).foreign == 1


def test_a_poll_that_was_read_in_part_is_the_last_one() -> None:
    agent = Agent("a", "e1")
    run = stream(agent, (ONE, TWO))
    assert agent.feed.seq == 2
    truth = Truth([[*run[:-1], *KILLED[len(RUN) :]]], snapshot(SECOND))
    assert truth.admit(run) == 1


def test_gaps_of_a_reader_are_counted() -> None:
    assert gaps(KILLED) == 0
    assert gaps([*RUN[:3], *RUN[4:]]) == 1
    assert gaps(snapshot(FIRST)) == 0
