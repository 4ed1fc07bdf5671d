"""The state of all processes, and the candidates for holders of new sockets."""

from collections.abc import Iterable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from agent.model import HoldingKey, ThreadFds, held_by
from agent.snapshot.holders import Holders, ProcessState

from ..make import process, tcp

DIRECTORY = 500
NETNS = 1


def directory(pid: int) -> int:
    """Return the inode of the descriptor directory of a process."""
    return DIRECTORY + pid


def scan(
    holders: Holders,
    pid: int = 7,
    fds: dict[int, int] | None = None,
    *,
    start: int = 100,
    thread_fds: tuple[tuple[int, int], ...] = (),
    uid: int | None = None,
    netns: int = NETNS,
) -> None:
    """Record a scan of a readable process."""
    holders.set_scan(process(pid, start, uid=uid), netns, directory(pid), fds or {}, thread_fds)


def scan_unreadable(holders: Holders, pid: int = 7, *, start: int = 100) -> None:
    """Record a scan of a process whose descriptors may not be read."""
    holders.set_scan(process(pid, start), NETNS, directory(pid), None)


def holders_of(**held: dict[int, int]) -> Holders:
    """Return the state after a first poll of these processes: ``p7={3: 11}``."""
    holders = Holders()
    holders.begin_poll()
    for name, fds in held.items():
        scan(holders, int(name[1:]), fds)
    holders.take_changes()
    return holders


# Queries.


def test_fds_of_returns_the_descriptors_on_the_sockets_by_process() -> None:
    holders = holders_of(p7={3: 11, 4: 11, 5: 12}, p8={9: 11}, p9={3: 13})
    fds_of = holders.fds_of([11, 99])
    assert {pid: sorted(fds) for pid, fds in fds_of.items()} == {7: [3, 4], 8: [9]}


def test_fds_of_leaves_out_unreadable_processes() -> None:
    holders = holders_of(p7={3: 11})
    scan_unreadable(holders)
    assert holders.fds_of([11]) == {}


def test_fds_of_leaves_out_descriptors_of_threads() -> None:
    holders = holders_of()
    scan(holders, 7, {3: 0}, thread_fds=((3, 11),))
    assert [list(fds) for fds in holders.fds_of([11]).values()] == [[]]


def test_the_process_that_changed_last_is_the_first_candidate() -> None:
    holders = holders_of(p7={3: 11}, p8={3: 12}, p9={3: 13})
    holders.begin_poll()
    holders.update_fds(8, {4: 14})
    assert holders.candidates_for([tcp(20)])[0] == 8


def test_processes_of_the_sockets_user_are_the_first_candidates() -> None:
    holders = holders_of()
    for pid, uid in ((7, 1), (8, 2), (9, 3)):
        scan(holders, pid, {}, uid=uid)
    assert holders.candidates_for([tcp(20, uid=2)])[0] == 8


def test_a_process_searched_in_vain_is_the_last_candidate_until_it_changes() -> None:
    holders = holders_of(p7={3: 11}, p8={3: 12})
    first, second = holders.candidates_for([tcp(20)])
    holders.mark_searched(first)
    assert holders.candidates_for([tcp(20)]) == [second, first]
    holders.begin_poll()
    holders.update_fds(first, {4: 13})
    assert holders.candidates_for([tcp(20)]) == [first, second]


def test_unreadable_processes_and_other_namespaces_are_no_candidates() -> None:
    holders = holders_of(p7={3: 11}, p8={3: 12})
    scan(holders, 9, {}, netns=2)
    scan_unreadable(holders, 8)
    assert holders.candidates_for([tcp(20)]) == [7]
    assert holders.candidates_for([]) == []


def test_mark_searched_ignores_a_process_that_is_gone() -> None:
    holders_of().mark_searched(7)


# Scans and changes.


def test_a_scan_without_a_difference_changes_nothing() -> None:
    holders = holders_of(p7={3: 11})
    scan(holders, 7, {3: 11})
    assert not holders.take_changes()


def test_a_scan_of_an_unreadable_process_leaves_its_sockets() -> None:
    holders = holders_of(p7={3: 11})
    scan_unreadable(holders)
    assert (holders.pids_of(11), holders.take_changes()) == ((7,), set())
    assert holders.processes[7].readable is False


def test_an_unreadable_process_with_a_reused_pid_inherits_no_socket() -> None:
    holders = holders_of(p7={3: 11})
    scan_unreadable(holders, start=200)
    assert (holders.pids_of(11), holders.take_changes()) == ((), {(7, 11)})


def test_a_process_with_a_reused_pid_holds_only_its_own_sockets() -> None:
    holders = holders_of(p7={3: 11, 4: 12})
    scan(holders, 7, {3: 11}, start=200)
    assert holders.processes[7].held == {11: (3,)}
    assert {(7, 11), (7, 12)} <= holders.take_changes()


def test_changed_facts_change_every_holding_of_the_process() -> None:
    holders = holders_of(p7={3: 11, 4: 12, 5: 0}, p8={3: 11})
    holders.set_facts(7, process=process(7, comm="other"))
    assert holders.take_changes() == {(7, 11), (7, 12)}
    assert holders.processes[7].process.comm == "other"


def test_equal_facts_change_nothing_and_keep_the_object() -> None:
    holders = holders_of(p7={3: 11})
    before = holders.processes[7].process
    holders.set_facts(7, process=process(7))
    assert not holders.take_changes()
    assert holders.processes[7].process is before


def test_remove_socket_removes_the_socket_from_one_process() -> None:
    holders = holders_of(p7={3: 11, 4: 11, 5: 12}, p8={3: 11})
    scan_unreadable(holders)
    holders.remove_socket(7, 11)
    assert holders.processes[7].held == {12: (5,)}
    assert holders.processes[7].fds == {5: 12}
    assert (holders.pids_of(11), holders.take_changes()) == ((8,), {(7, 11)})


# Random steps, compared with a plain model.

# What happens, to which process, with which descriptors.
Step = tuple[str, int, Mapping[int, int | None]]
# pid → descriptor → inode
World = dict[int, dict[int, int]]
pids = st.integers(1, 3)
tables = st.dictionaries(st.integers(0, 5), st.integers(0, 4), max_size=5).map(
    lambda fds: dict(sorted(fds.items()))
)
changes = st.dictionaries(st.integers(0, 5), st.none() | st.integers(0, 4), max_size=4)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("scan"), pids, tables),
    st.tuples(st.just("change"), pids, changes),
    st.tuples(st.just("drop"), pids, st.just({})),
)


def holdings_of(world: World) -> dict[HoldingKey, tuple[int, ...]]:
    """Return the descriptors of each holding of the model."""
    return {
        (pid, inode): tuple(sorted(fd for fd, at in fds.items() if at == inode))
        for pid, fds in world.items()
        for inode in set(fds.values()) - {0}
    }


def apply(holders: Holders, world: World, step: Step) -> None:
    """Apply a step to the state and to the model."""
    what, pid, fds = step
    if what == "scan":
        world[pid] = {fd: inode for fd, inode in fds.items() if inode is not None}
        scan(holders, pid, dict(world[pid]))
    elif what == "drop":
        world.pop(pid, None)
        holders.drop(pid)
    elif pid in world:
        holders.update_fds(pid, fds)
        for fd, inode in fds.items():
            if inode is None:
                world[pid].pop(fd, None)
            else:
                world[pid][fd] = inode


def holdings_in(holders: Holders) -> dict[HoldingKey, tuple[int, ...]]:
    """Return the descriptors of each holding in the state."""
    return {
        (pid, inode): fds
        for pid, state in holders.processes.items()
        for inode, fds in state.held.items()
    }


@given(st.lists(steps, max_size=12))
def test_the_state_equals_that_of_a_scan_of_all_processes(
    done: Iterable[Step],
) -> None:
    holders = Holders()
    world: World = {}
    for step in done:
        apply(holders, world, step)
        assert holdings_in(holders) == holdings_of(world)
        assert {pid: state.fds for pid, state in holders.processes.items()} == world
        for inode in range(6):
            expected = {pid for pid, at in holdings_of(world) if at == inode}
            assert set(holders.pids_of(inode)) == expected
            assert len(holders.pids_of(inode)) == len(expected)


@given(st.lists(steps, max_size=6), st.lists(steps, max_size=6))
def test_take_changes_contains_every_difference(
    first: Iterable[Step],
    then: Iterable[Step],
) -> None:
    holders = Holders()
    world: World = {}
    for step in first:
        apply(holders, world, step)
    before = holdings_of(world)
    holders.take_changes()
    for step in then:
        apply(holders, world, step)
    after = holdings_of(world)
    differ = {at for at in before.keys() | after.keys() if before.get(at) != after.get(at)}
    assert differ <= holders.take_changes()


# The state of one process.


def state_of(fds: dict[int, int], thread_fds: ThreadFds = ()) -> ProcessState:
    """Return the state of a process with these descriptors."""
    state = ProcessState(process(), changed_in=1, new_until=0)
    state.replace_fds(fds, thread_fds)
    return state


def test_the_descriptors_on_a_socket_are_in_ascending_order() -> None:
    assert held_by({3: 11, 4: 0, 5: 11, 6: 12}, ((4, 11), (3, 11), (9, 13))) == {
        11: (3, 4, 5), 12: (6,), 13: (9,)
    }  # fmt: skip


def test_replace_fds_returns_what_was_held_before() -> None:
    state = state_of({3: 11})
    assert state.replace_fds({4: 12, 5: 0}, ()) == {11: (3,)}
    assert (state.fds, state.held) == ({4: 12, 5: 0}, {12: (4,)})


def test_update_fds_returns_the_changed_sockets_before_and_after() -> None:
    state = state_of({3: 11, 4: 11, 5: 12, 6: 13})
    assert state.update_fds({4: 12, 6: None}) == (
        {11: (3, 4), 12: (5,), 13: (6,)},
        {11: (3,), 12: (4, 5)},
    )
    assert state.held == {11: (3,), 12: (4, 5)}


def test_a_change_leaves_the_descriptor_of_a_thread_with_the_same_number() -> None:
    state = state_of({3: 11}, ((3, 11),))
    state.update_fds({3: None})
    assert state.held == {11: (3,)}


def test_a_number_that_a_thread_uses_too_is_listed_once() -> None:
    state = state_of({}, ((3, 11),))
    state.update_fds({3: 11})
    assert state.held == {11: (3,)}


def test_many_descriptors_on_one_socket_stay_in_order() -> None:
    state = state_of(dict.fromkeys(range(3, 300), 11))
    assert state.held == {11: tuple(range(3, 300))}
    state.update_fds({5: None, 300: 11, 6: 12})
    assert state.held == {11: (3, 4, *range(7, 301)), 12: (6,)}


def test_remove_socket_returns_and_removes_its_descriptors() -> None:
    state = state_of({3: 11, 4: 11, 5: 12})
    assert state.remove_socket(11) == {11: (3, 4)}
    assert (state.fds, state.held) == ({5: 12}, {12: (5,)})
    assert state.remove_socket(11) == {}


def test_set_facts_keeps_the_facts_that_are_none() -> None:
    state = state_of({})
    assert not state.set_facts(process(), 5, None)
    assert state.set_facts(process(comm="other"), None, None)
    assert (state.process.comm, state.netns) == ("other", 5)


def test_a_change_resets_the_count_of_searches() -> None:
    state = state_of({})
    state.add_search()
    state.set_changed(4)
    assert (state.searches, state.changed_in) == (0, 4)
