from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.snapshot.quota import (
    CEILING,
    NO_EXCESS,
    Limits,
    Usage,
    excess,
    in_turn,
    late_namespaces,
    rounded,
)

LIMITS = Limits(descriptors=100, holdings=50, namespaces=2)


def test_within_the_limits_no_process_is_late() -> None:
    assert (
        excess({1: Usage(5, 60, 20), 2: Usage(5, 40, 30), 3: Usage(6, 100, 0)}, LIMITS) == NO_EXCESS
    )


def test_the_largest_processes_of_a_user_beyond_the_limit_are_late() -> None:
    found = excess({1: Usage(5, 90, 0), 2: Usage(5, 10, 0), 3: Usage(5, 1, 0)}, LIMITS)
    assert found == (frozenset({1}), frozenset(), {5: (101, 3)})


def test_sockets_are_limited_and_unread_descriptors_count_as_sockets() -> None:
    assert excess({1: Usage(5, 40, 30), 2: Usage(5, 41, 21)}, LIMITS).late == {2}
    assert excess({1: Usage(5, 20, 20), 2: Usage(5, 31, None)}, LIMITS).late == {2}
    assert excess({1: Usage(5, 20, 20), 2: Usage(5, 31, 30)}, LIMITS) == NO_EXCESS


def test_beyond_the_ceiling_processes_are_barred() -> None:
    found = excess({pid: Usage(5, 60, 0) for pid in range(1, 6)}, LIMITS)
    assert (len(found.late), len(found.barred)) == (4, 2)


def test_root_is_exempt() -> None:
    assert excess({1: Usage(0, 10_000, 10_000)}, LIMITS) == NO_EXCESS


usages = st.dictionaries(
    st.integers(1, 50),
    st.builds(Usage, st.integers(0, 3), st.integers(0, 120), st.none() | st.integers(0, 120)),
    max_size=20,
)


@given(usages)
def test_processes_that_are_not_late_are_within_the_limits_of_their_user(
    processes: Mapping[int, Usage],
) -> None:
    found = excess(processes, LIMITS)
    assert found.barred <= found.late <= processes.keys()
    for uid in {one.uid for one in processes.values()} - {0}:
        for excluded, factor in ((found.late, 1), (found.barred, CEILING)):
            counts = [
                one.descriptors
                for pid, one in processes.items()
                if one.uid == uid and pid not in excluded
            ]
            assert sum(counts) <= factor * LIMITS.descriptors
    assert not any(processes[pid].uid == 0 for pid in found.late)


def test_namespaces_are_late_after_the_first_ones_of_a_user() -> None:
    owners = {11: [5], 12: [5, 5], 13: [5], 14: [6], 15: [0], 16: [5, 0], 17: [5, 6], 18: [5]}
    assert late_namespaces(owners, 2) == {5: [13, 18]}


def test_keys_never_read_or_read_longest_ago_come_first() -> None:
    assert in_turn([1, 2, 3], {1: 5, 2: 4}) == [3, 2, 1]


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0"), (7, "7"), (84, "80"), (420_005, "400,000")]
)
def test_numbers_are_rounded_down_to_their_first_digit(count: int, expected: str) -> None:
    assert rounded(count) == expected
