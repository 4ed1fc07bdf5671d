import pytest

from agent.model import Coverage, Process
from agent.snapshot.coverage import HIDDEN, MAX_ALIKE, coverage, kind, named
from agent.snapshot.holders import Holders


def holders_of(*pids: int, denied: tuple[int, ...] = ()) -> Holders:
    """Return the state of processes; the descriptors of ``denied`` ones may not be read."""
    holders = Holders()
    for pid in pids:
        process = Process(pid, 1, f"app{pid}", 1, 0.0)
        holders.set_scan(process, 1, pid, None if pid in denied else {})
    return holders


def test_without_failures_nothing_is_missing() -> None:
    found = coverage(holders_of(1, 2), 3, {}, hidden=False, unread=())
    assert found == Coverage(2, 0, 3)


def test_missing_is_reported_in_sentences() -> None:
    holders = holders_of(1, 2, 3, denied=(2,))
    failed = {3: "no", 4: "no", 1: "never"}
    found = coverage(holders, 1, failed, hidden=True, unread=["tcp is gone"])
    assert (found.processes, found.unreadable) == (3, 1)
    assert found.missing == (
        "the descriptors of process 2 (app2) may not be read",
        HIDDEN,
        "process 1 (app1) could not be read (never)",
        "processes 3 (app3), 4 could not be read (no)",
        "tcp is gone",
    )


def test_many_processes_are_counted_not_named() -> None:
    holders = holders_of(1, 2, 3, 4, denied=(1, 2, 3, 4))
    failed = dict.fromkeys((1, 2, 3, 4), "no")
    assert coverage(holders, 1, failed, hidden=False, unread=()).missing == (
        "the descriptors of some processes may not be read",
        "4 processes could not be read (no)",
    )


def test_of_many_sentences_of_one_kind_the_first_are_listed_and_the_rest_counted() -> None:
    tables = [f"tcp of network namespace {at} could not be read (no)" for at in range(3000)]
    found = coverage(holders_of(1), 1, {}, hidden=False, unread=[*tables, "unix is gone"])
    assert found.missing == (
        *tables[: MAX_ALIKE - 1],
        f"{tables[MAX_ALIKE - 1]}; {3000 - MAX_ALIKE} more such gaps",
        "unix is gone",
    )


def test_processes_are_named_in_ascending_order() -> None:
    assert named({7: None}) == "process 7"
    assert named({9: "b", 8: "a"}) == "processes 8 (a), 9 (b)"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 malformed rows of tcp skipped", "40 malformed rows of tcp skipped"),
        ("tcp of network namespace 1 is gone", "tcp of network namespace 20 is gone"),
        (
            "the descriptors of process 1 (a) may not be read",
            "the descriptors of processes 2 (b (c)), 3 (d) tcp\n is), 4 (e) may not be read",
        ),
        (
            "the descriptors of process 7 may not be read",
            "the descriptors of some processes may not be read",
        ),
    ],
)
def test_sentences_that_differ_in_names_and_numbers_are_of_one_kind(one: str, other: str) -> None:
    assert kind(one) == kind(other)


def test_sentences_about_different_gaps_are_of_different_kinds() -> None:
    sentences = [HIDDEN, "tcp of network namespace 1 is gone", "udp of network namespace 1 is gone"]
    assert len(set(map(kind, sentences))) == 3
