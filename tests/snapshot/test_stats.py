import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.snapshot.stats import (
    WINDOW,
    PollCost,
    PollStats,
    PollSummary,
    WorkCounters,
    sentence,
)

# All zeros before there is anything to tell.
NOTHING = PollSummary(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)


def vitals(*polls: PollCost) -> PollStats:
    gathered = PollStats()
    for poll in polls:
        gathered.add(poll)
    return gathered


def lasting(*seconds: float) -> PollStats:
    return vitals(*(PollCost(one, 0.0, WorkCounters()) for one in seconds))


def test_before_the_first_poll_there_is_nothing_to_tell() -> None:
    assert PollStats().figures() == NOTHING
    assert sentence(NOTHING).startswith("0 polls, 0 late;")


def test_one_poll_is_all_of_the_figures() -> None:
    one = vitals(PollCost(0.25, 0.125, WorkCounters(3, 40, 500)))
    assert one.figures() == PollSummary(1, 250.0, 250.0, 125.0, 3.0, 40.0, 500.0, 0)


def test_a_poll_takes_the_median() -> None:
    assert lasting(0.001, 0.002, 0.9).figures().poll_ms == 2.0
    assert 1.0 <= lasting(0.001, 0.003).figures().poll_ms <= 3.0


def test_one_slow_poll_of_many_shows_in_the_99th_percentile() -> None:
    figures = lasting(0.9, *[0.001] * 99).figures()
    assert (figures.poll_ms, figures.poll_p99_ms) == (1.0, 900.0)
    assert lasting(0.9, *[0.001] * 199).figures().poll_p99_ms == 1.0


def test_cpu_and_work_are_per_poll() -> None:
    figures = vitals(
        PollCost(1, 0.002, WorkCounters(1, 10, 0)), PollCost(1, 0.004, WorkCounters(2, 0, 5))
    ).figures()
    assert figures.poll_cpu_ms == 3.0
    assert (figures.processes_walked, figures.descriptors_read, figures.rows_decoded) == (
        1.5, 5.0, 2.5
    )  # fmt: skip


def test_late_polls_are_counted() -> None:
    gathered = lasting(0.1)
    gathered.add(PollCost(3.0, 0.0, WorkCounters()), late=True)
    assert (gathered.figures().polls, gathered.figures().late_polls) == (2, 1)


def test_old_polls_are_counted_but_not_in_the_figures() -> None:
    gathered = PollStats()
    gathered.add(PollCost(100.0, 100.0, WorkCounters(9, 9, 9)), late=True)
    for _ in range(WINDOW):
        gathered.add(PollCost(0.001, 0.001, WorkCounters(1, 1, 1)))
    assert gathered.figures() == PollSummary(WINDOW + 1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1)


def test_the_sentence_tells_every_figure() -> None:
    figures = PollSummary(11, 22.25, 33.5, 44.75, 55.5, 66.5, 77.5, 88)
    told = sentence(figures)
    assert all(str(figure) in told for figure in figures)
    assert "\n" not in told


amounts = st.floats(0, 1e4)
polls = st.builds(PollCost, amounts, amounts, st.builds(WorkCounters, *[st.integers(0, 10**7)] * 3))


@given(st.lists(polls, min_size=1, max_size=20))
def test_figures_lie_within_what_was_measured(found: list[PollCost]) -> None:
    figures = vitals(*found).figures()
    shortest, longest = (pick(one.seconds for one in found) * 1000 for pick in (min, max))
    assert shortest - 0.01 <= figures.poll_ms <= figures.poll_p99_ms <= longest + 0.01
    assert min(one.work.rows for one in found) <= figures.rows_decoded + 0.1
    assert figures.rows_decoded - 0.1 <= max(one.work.rows for one in found)
    assert json.loads(json.dumps(figures._asdict())) == figures._asdict()


def test_work_is_told_from_the_start() -> None:
    assert WorkCounters() == (0, 0, 0)
    with pytest.raises(AttributeError):
        WorkCounters().rows = 1  # type: ignore[misc]
