import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.vitals import WINDOW, Figures, Poll, Vitals, Work, sentence

# All zeros before there is anything to tell.
NOTHING = Figures(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)


def vitals(*polls: Poll) -> Vitals:
    gathered = Vitals()
    for poll in polls:
        gathered.add(poll)
    return gathered


def lasting(*seconds: float) -> Vitals:
    return vitals(*(Poll(one, 0.0, Work()) for one in seconds))


def test_before_the_first_poll_there_is_nothing_to_tell() -> None:
    assert Vitals().figures() == NOTHING
    assert sentence(NOTHING).startswith("0 polls, 0 late;")


def test_one_poll_is_all_of_the_figures() -> None:
    one = vitals(Poll(0.25, 0.125, Work(3, 40, 500)))
    assert one.figures() == Figures(1, 250.0, 250.0, 125.0, 3.0, 40.0, 500.0, 0)


def test_a_poll_takes_the_median() -> None:
    assert lasting(0.001, 0.002, 0.9).figures().poll_ms == 2.0
    assert 1.0 <= lasting(0.001, 0.003).figures().poll_ms <= 3.0


def test_one_slow_poll_of_many_shows_in_the_99th_percentile() -> None:
    figures = lasting(0.9, *[0.001] * 99).figures()
    assert (figures.poll_ms, figures.poll_p99_ms) == (1.0, 900.0)
    assert lasting(0.9, *[0.001] * 199).figures().poll_p99_ms == 1.0


def test_cpu_and_work_are_per_poll() -> None:
    figures = vitals(Poll(1, 0.002, Work(1, 10, 0)), Poll(1, 0.004, Work(2, 0, 5))).figures()
    assert figures.poll_cpu_ms == 3.0
    assert (figures.processes_walked, figures.descriptors_read, figures.rows_decoded) == (
        1.5, 5.0, 2.5
    )  # fmt: skip


def test_late_polls_are_counted() -> None:
    gathered = lasting(0.1)
    gathered.add(Poll(3.0, 0.0, Work()), late=True)
    assert (gathered.figures().polls, gathered.figures().late_polls) == (2, 1)


def test_old_polls_are_counted_but_not_in_the_figures() -> None:
    gathered = Vitals()
    gathered.add(Poll(100.0, 100.0, Work(9, 9, 9)), late=True)
    for _ in range(WINDOW):
        gathered.add(Poll(0.001, 0.001, Work(1, 1, 1)))
    assert gathered.figures() == Figures(WINDOW + 1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1)


def test_the_sentence_tells_every_figure() -> None:
    figures = Figures(11, 22.25, 33.5, 44.75, 55.5, 66.5, 77.5, 88)
    told = sentence(figures)
    assert all(str(figure) in told for figure in figures)
    assert "\n" not in told


amounts = st.floats(0, 1e4)
polls = st.builds(Poll, amounts, amounts, st.builds(Work, *[st.integers(0, 10**7)] * 3))


@given(st.lists(polls, min_size=1, max_size=20))
def test_figures_lie_within_what_was_measured(found: list[Poll]) -> None:
    figures = vitals(*found).figures()
    shortest, longest = (pick(one.seconds for one in found) * 1000 for pick in (min, max))
    assert shortest - 0.01 <= figures.poll_ms <= figures.poll_p99_ms <= longest + 0.01
    assert min(one.work.rows for one in found) <= figures.rows_decoded + 0.1
    assert figures.rows_decoded - 0.1 <= max(one.work.rows for one in found)
    assert json.loads(json.dumps(figures._asdict())) == figures._asdict()


def test_work_is_told_from_the_start() -> None:
    assert Work() == (0, 0, 0)
    with pytest.raises(AttributeError):
        Work().rows = 1  # type: ignore[misc]
