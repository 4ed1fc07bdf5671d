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

NOTHING = PollSummary(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0)


def stats_of(*polls: PollCost) -> PollStats:
    stats = PollStats()
    for poll in polls:
        stats.add(poll)
    return stats


def lasting(*seconds: float) -> PollStats:
    """Return the statistics of polls that took this long."""
    return stats_of(*(PollCost(one, 0.0, WorkCounters()) for one in seconds))


def test_before_the_first_poll_all_figures_are_zero() -> None:
    assert PollStats().figures() == NOTHING
    assert sentence(NOTHING).startswith("0 polls, 0 late;")


def test_the_figures_of_one_poll_are_its_cost() -> None:
    one = stats_of(PollCost(0.25, 0.125, WorkCounters(3, 40, 500)))
    assert one.figures() == PollSummary(1, 250.0, 250.0, 125.0, 3.0, 40.0, 500.0, 0, 0, 0, 0)


def test_poll_ms_is_the_median() -> None:
    assert lasting(0.001, 0.002, 0.9).figures().poll_ms == 2.0
    assert 1.0 <= lasting(0.001, 0.003).figures().poll_ms <= 3.0


def test_one_slow_poll_of_many_shows_in_the_99th_percentile() -> None:
    figures = lasting(0.9, *[0.001] * 99).figures()
    assert (figures.poll_ms, figures.poll_p99_ms) == (1.0, 900.0)
    assert lasting(0.9, *[0.001] * 199).figures().poll_p99_ms == 1.0


def test_cpu_and_work_are_per_poll() -> None:
    figures = stats_of(
        PollCost(1, 0.002, WorkCounters(1, 10, 0)), PollCost(1, 0.004, WorkCounters(2, 0, 5))
    ).figures()
    assert figures.poll_cpu_ms == 3.0
    assert (figures.processes_walked, figures.descriptors_read, figures.rows_decoded) == (
        1.5, 5.0, 2.5
    )  # fmt: skip


def test_late_polls_are_counted() -> None:
    stats = lasting(0.1)
    stats.add(PollCost(3.0, 0.0, WorkCounters()), late=True)
    assert (stats.figures().polls, stats.figures().late_polls) == (2, 1)


def test_old_polls_are_only_counted() -> None:
    stats = PollStats()
    stats.add(PollCost(100.0, 100.0, WorkCounters(9, 9, 9)), late=True)
    for _ in range(WINDOW):
        stats.add(PollCost(0.001, 0.001, WorkCounters(1, 1, 1)))
    assert stats.figures() == PollSummary(WINDOW + 1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1, 0, 0, 0)


def test_the_sentence_contains_every_figure() -> None:
    figures = PollSummary(11, 22.25, 33.5, 44.75, 55.5, 66.5, 77.5, 88, 99, 98, 7)
    text = sentence(figures)
    assert all(str(figure) in text for figure in figures)
    assert "\n" not in text


@pytest.mark.parametrize("poll", [False, True])
def test_figures_have_the_newest_counts_of_events(poll: bool) -> None:
    stats = lasting(0.1) if poll else PollStats()
    for counts in ((1, 1, 0), (5, 4, 3)):
        stats.set_events(*counts)
    figures = stats.figures()
    assert (figures.tcp_ends, figures.tcp_ends_with_events, figures.events_lost) == (5, 4, 3)


def test_the_sentence_has_events_only_if_there_are_any() -> None:
    assert "event" not in sentence(NOTHING)
    assert "9 events were lost" in sentence(NOTHING._replace(events_lost=9))
    assert "reported 4 of 5 ends" in sentence(NOTHING._replace(tcp_ends=5, tcp_ends_with_events=4))


amounts = st.floats(0, 1e4)
polls = st.builds(PollCost, amounts, amounts, st.builds(WorkCounters, *[st.integers(0, 10**7)] * 3))


@given(st.lists(polls, min_size=1, max_size=20))
def test_figures_lie_within_the_measured_range(found: list[PollCost]) -> None:
    figures = stats_of(*found).figures()
    shortest, longest = (extreme(one.seconds for one in found) * 1000 for extreme in (min, max))
    assert shortest - 0.01 <= figures.poll_ms <= figures.poll_p99_ms <= longest + 0.01
    assert min(one.work.rows for one in found) <= figures.rows_decoded + 0.1
    assert figures.rows_decoded - 0.1 <= max(one.work.rows for one in found)
    assert json.loads(json.dumps(figures._asdict())) == figures._asdict()


def test_work_counters_begin_at_zero_and_are_frozen() -> None:
    assert WorkCounters() == (0, 0, 0)
    with pytest.raises(AttributeError):
        WorkCounters().rows = 1  # type: ignore[misc]
