"""Which processes and descriptors each poll reads."""

from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.snapshot.holders import NEW_POLLS, Holders
from agent.snapshot.plan import MAX_SKIPS, STAT_CHECK_POLLS, Budget, Plan, Planner

from .test_holders import directory, holders_of, scan, scan_unreadable

NOTHING = Budget(0, 0)
ENOUGH = Budget(0, 10_000)


class Planned:
    """Polls of processes (``p7={3: 11}``) for which the test states whether they have run."""

    def __init__(self, **held: dict[int, int]) -> None:
        self.holders = holders_of(**held)
        self.planner = Planner(self.holders)

    def poll(
        self,
        budget: Budget = NOTHING,
        *,
        ran: Collection[int] = (),
        unknown: Collection[int] = (),
        counts: Mapping[int, int] | None = None,
        gone: Collection[int] = (),
    ) -> Plan:
        """Return the next plan.

        ``ran`` are processes that have run, ``unknown`` those for which this is unknown. ``counts``
        are numbers of descriptors that changed, and new processes."""
        processes = self.holders.processes
        pids = [pid for pid in processes.keys() | (counts or {}) if pid not in gone]
        have_run: dict[int, bool | None] = {pid: pid in ran for pid in pids}
        have_run.update(dict.fromkeys(unknown))
        counted = {}
        for pid in self.planner.to_count(pids, have_run):
            state = processes.get(pid)
            count = len(state.fds) if state is not None else 0
            counted[pid] = (directory(pid), (counts or {}).get(pid, count))
        return self.planner.plan(pids, counted, have_run, budget)


def read(plan: Plan) -> dict[int, list[int]]:
    """Return the descriptors that are read, by process."""
    return {pid: sorted(fds) for pid, fds in plan.parts.items() if fds}


def test_a_new_process_is_scanned_as_a_whole() -> None:
    planned = Planned(p7={3: 11})
    assert planned.poll(counts={8: 0}).whole == [8]


def test_nothing_is_read_if_no_process_has_run() -> None:
    planned = Planned(p7={3: 11}, p8={3: 0})
    for _ in range(3):
        assert planned.poll(ENOUGH) == Plan([], {}, set(), [], [])


def test_all_descriptors_of_a_process_that_has_run_are_read_once() -> None:
    planned = Planned(p7={3: 11, 4: 0}, p8={3: 12})
    assert read(planned.poll(ENOUGH, ran=[7])) == {7: [3, 4]}
    assert read(planned.poll(ENOUGH)) == {}


def test_the_stat_of_a_process_that_has_run_is_checked() -> None:
    planned = Planned(p7={3: 11})
    assert planned.poll(NOTHING, ran=[7]).stat_checks == [7]


def test_of_processes_that_have_run_the_smallest_are_read_first() -> None:
    planned = Planned(p7=dict.fromkeys(range(3), 0), p8={3: 12}, p9=dict.fromkeys(range(5), 0))
    plan = planned.poll(Budget(0, 4), ran=[7, 8, 9])
    assert plan.parts.keys() == {7, 8}
    assert planned.planner.backlog == 5
    plans = [planned.poll(Budget(0, 4)) for _ in range(3)]
    assert sorted(fd for plan in plans for fd in read(plan).get(9, ())) == list(range(5))
    assert planned.planner.backlog == 0


def test_a_large_process_is_read_although_small_ones_run_all_the_time() -> None:
    small = {f"p{pid}": {3: pid} for pid in range(11, 19)}
    planned = Planned(p7=dict.fromkeys(range(100), 0), **small)
    found = read(planned.poll(Budget(0, 8), ran=[7, *range(11, 19)])).get(7, [])
    for _ in range(200):
        found += read(planned.poll(Budget(0, 8), ran=range(11, 19))).get(7, [])
    assert sorted(found) == list(range(100))


def test_a_process_that_runs_while_it_is_read_in_slices_is_read_once_more() -> None:
    planned = Planned(p7=dict.fromkeys(range(6), 0))
    first = read(planned.poll(Budget(0, 4), ran=[7]))[7]
    rest = read(planned.poll(Budget(0, 4), ran=[7]))[7]
    assert {*first, *rest} == set(range(6))
    again = [read(planned.poll(Budget(0, 4)))[7] for _ in range(2)]
    assert sorted(fd for fds in again for fd in fds) == list(range(6))
    assert read(planned.poll(Budget(0, 4))) == {}


@pytest.mark.parametrize("count", [0, 2])
def test_a_changed_number_of_descriptors_has_new_ones_and_facts_read(count: int) -> None:
    planned = Planned(p7={3: 11}, p8={3: 12})
    plan = planned.poll(ran=[7], counts={7: count})
    assert plan[:2] == ([], {7: ()})
    assert plan.facts == {7}


def test_descriptors_of_a_process_that_has_not_run_are_counted_in_a_tenth_of_the_polls() -> None:
    planned = Planned(p7={3: 11})
    parts = [planned.poll(counts={7: 2}).parts for _ in range(STAT_CHECK_POLLS)]
    assert parts.count({7: ()}) == 1


def test_a_process_with_another_descriptor_directory_is_scanned_as_a_whole() -> None:
    planned = Planned(p7={3: 11}, p8={3: 12})
    ran = {7: True, 8: False}
    assert planned.planner.plan([7, 8], {7: (1, 1)}, ran, NOTHING)[:2] == ([7], {})


def test_a_process_that_is_gone_is_dropped_and_the_stat_of_its_children_checked() -> None:
    planned = Planned(p7={3: 11}, p8={3: 11})
    parent = planned.holders.processes[8].process._replace(ppid=7)
    planned.holders.set_facts(8, process=parent)
    assert planned.poll(gone=[7]).stat_checks == [8]
    assert planned.holders.pids_of(11) == (8,)


def test_a_process_with_thread_descriptors_is_scanned_when_it_has_run() -> None:
    planned = Planned()
    scan(planned.holders, 7, {3: 11}, thread_fds=((3, 12),))
    for _ in range(2 * NEW_POLLS):
        assert planned.poll(ENOUGH).whole == []
        assert planned.poll(ENOUGH, ran=[7]).whole == [7]
        assert planned.poll(ENOUGH, unknown=[7]).whole == [7]


def test_a_process_is_checked_in_each_poll_while_it_is_new() -> None:
    planned = Planned(p7={3: 11})
    planned.poll()
    scan(planned.holders, 8, {3: 12})
    plans = [planned.poll().parts for _ in range(2 * NEW_POLLS)]
    assert plans[0] == {8: ()}
    assert plans[-1] == {}


def test_an_unreadable_process_is_not_read_when_its_number_of_descriptors_changes() -> None:
    planned = Planned()
    scan_unreadable(planned.holders)
    assert planned.poll(ENOUGH, ran=[7], counts={7: 9})[:2] == ([], {})


def test_the_sweep_scans_unreadable_processes() -> None:
    planned = Planned()
    scan_unreadable(planned.holders)
    assert planned.poll(Budget(10, 0)).whole == [7]


def test_where_it_is_unknown_which_processes_ran_stats_are_checked_in_turn() -> None:
    pids = range(1, 30)
    planned = Planned(**{f"p{pid}": {} for pid in pids})
    checks = [planned.poll(unknown=pids).stat_checks for _ in range(STAT_CHECK_POLLS)]
    assert sorted(pid for pids_checked in checks for pid in pids_checked) == list(pids)
    assert max(map(len, checks)) <= 3


# The sweep, where it is unknown which processes have run.


def sweep(planned: Planned, budget: int) -> dict[int, list[int]]:
    """Return what a poll reads, by process, if only the sweep reads something."""
    plan = planned.poll(Budget(budget, 0), unknown=list(planned.holders.processes))
    assert plan.whole == []
    return {pid: list(fds) for pid, fds in plan.parts.items() if fds is not None}


def test_a_sweep_reads_all_descriptors_within_its_budget() -> None:
    parts = sweep(Planned(p7={3: 11, 4: 0}, p8={3: 12}), 100)
    assert {pid: sorted(fds) for pid, fds in parts.items()} == {7: [3, 4], 8: [3]}


def test_a_large_process_is_swept_in_slices() -> None:
    planned = Planned(p7=dict.fromkeys(range(10), 0))
    slices = [sweep(planned, 4).get(7, []) for _ in range(3)]
    assert sorted(fd for one in slices for fd in one) == list(range(10))
    assert all(slices)


def test_a_sweep_continues_after_a_process_that_is_gone() -> None:
    planned = Planned(p7={3: 1, 4: 2}, p8={3: 3, 4: 4})
    (first,) = sweep(planned, 1)
    (other,) = {7, 8} - {first}
    planned.holders.drop(first)
    found = [fd for _ in range(4) for fd in sweep(planned, 2).get(other, ())]
    assert {3, 4} <= set(found)


def test_a_sweep_continues_after_unreadable_processes() -> None:
    planned = Planned(p7={3: 1, 4: 2}, p8={3: 3, 4: 4}, p9={3: 5, 4: 6})
    for pid in (7, 9):
        scan_unreadable(planned.holders, pid)
    plans = [planned.poll(Budget(2, 0), unknown=(7, 8, 9)) for _ in range(8)]
    found = [fd for plan in plans for fd in read(plan).get(8, ())]
    assert {3, 4} <= set(found)


sizes = st.lists(st.integers(0, 12), min_size=1, max_size=8)


@given(sizes, st.integers(1, 30))
def test_a_sweep_stays_within_its_budget_and_reads_every_descriptor(
    counts: list[int], budget: int
) -> None:
    every = {pid: dict.fromkeys(range(count), 0) for pid, count in enumerate(counts, 1)}
    planned = Planned(**{f"p{pid}": fds for pid, fds in every.items()})
    unread = {(pid, fd) for pid, fds in every.items() for fd in fds}
    # A process may cost one more than its descriptors, and so may the rest of one that was begun.
    for _ in range(2 * (sum(counts) + len(counts)) // budget + 2):
        parts = sweep(planned, budget)
        assert sum(map(len, parts.values())) <= budget
        unread -= {(pid, fd) for pid, fds in parts.items() for fd in fds}
    assert not unread


# The sweep, of processes that have not run.


def turn(planned: Planned) -> Plan:
    """Return a plan whose sweep has the budget for all processes."""
    return planned.poll(Budget(1000, 0))


def test_the_sweep_reads_only_the_facts_of_a_process_that_has_not_run() -> None:
    plan = turn(Planned(p7={3: 11}))
    assert (plan.parts, plan.facts, plan.turns) == ({7: None}, {7}, [7])


def test_after_max_skips_the_sweep_reads_a_process_that_has_not_run() -> None:
    planned = Planned(p7={3: 11})
    found = [bool(read(turn(planned))) for _ in range(2 * MAX_SKIPS + 2)]
    assert found == 2 * [*[False] * MAX_SKIPS, True]


def test_after_max_skips_the_sweep_scans_a_process_with_thread_descriptors() -> None:
    planned = Planned()
    scan(planned.holders, 7, {3: 11}, thread_fds=((3, 12),))
    found = [bool(turn(planned).whole) for _ in range(2 * MAX_SKIPS + 2)]
    assert found == 2 * [*[False] * MAX_SKIPS, True]


def test_a_process_that_shares_its_descriptors_is_never_skipped_nor_its_parent() -> None:
    planned = Planned(p1={3: 11}, p7={3: 11}, p8={3: 11})
    planned.holders.mark_shared(7)
    for _ in range(2):
        assert read(turn(planned)).keys() == {1, 7}


# Processes that have run, in any order and with any budget.


@given(
    sizes,
    st.lists(st.sets(st.integers(1, 8), max_size=4), max_size=6),
    st.integers(1, 10),
)
def test_every_descriptor_of_a_process_is_read_after_it_has_run(
    counts: list[int], runs: list[set[int]], budget: int
) -> None:
    planned = Planned(
        **{f"p{pid}": dict.fromkeys(range(count), 0) for pid, count in enumerate(counts, 1)}
    )
    unread: set[tuple[int, int]] = set()
    for ran in [*runs, *[set[int]()] * (sum(counts) * (len(runs) + 1))]:
        processes = planned.holders.processes
        now = {pid for pid in ran if pid in processes}
        unread |= {(pid, fd) for pid in now for fd in processes[pid].fds}
        plan = planned.poll(Budget(0, budget), ran=now)
        assert sum(map(len, read(plan).values())) <= budget
        unread -= {(pid, fd) for pid, fds in read(plan).items() for fd in fds}
    assert not unread
    assert planned.planner.backlog == 0


def test_a_process_that_is_gone_leaves_no_backlog() -> None:
    holders = Holders()
    planner = Planner(holders)
    holders.begin_poll()
    scan(holders, 7, dict.fromkeys(range(10), 0))
    planner.plan([7], {7: (directory(7), 10)}, {7: True}, Budget(0, 4))
    holders.drop(7)
    planner.plan([], {}, {}, Budget(0, 4))
    assert planner.backlog == 0
