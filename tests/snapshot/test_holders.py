"""What is kept of the processes, and where to look for new sockets."""

from collections.abc import Iterable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from agent.model import HoldingKey, held_by
from agent.snapshot.holders import Holders

from ..make import process, tcp

DIRECTORY = 500
NETNS = 1


def directory(pid: int) -> int:
    return DIRECTORY + pid


def take(
    holders: Holders,
    pid: int = 7,
    fds: dict[int, int] | None = None,
    *,
    start: int = 100,
    more: tuple[tuple[int, int], ...] = (),
    uid: int | None = None,
    netns: int = NETNS,
) -> None:
    """What a look at a readable process showed."""
    holders.set_scan(process(pid, start, uid=uid), netns, directory(pid), fds or {}, more)


def deny(holders: Holders, pid: int = 7, *, start: int = 100) -> None:
    holders.set_scan(process(pid, start), NETNS, directory(pid), None)


def settled(**held: dict[int, int]) -> Holders:
    """Processes (``p7={3: 11}``) as the first poll finds them."""
    holders = Holders()
    holders.begin_poll()
    for name, fds in held.items():
        take(holders, int(name[1:]), fds)
    holders.take_changes()
    return holders


# Suspects, and where to look first.


def test_the_descriptors_on_what_left_the_tables_are_suspects() -> None:
    holders = settled(p7={3: 11, 4: 11, 5: 12}, p8={9: 11}, p9={3: 13})
    fds_of = holders.fds_of([11, 99])
    assert {pid: sorted(fds) for pid, fds in fds_of.items()} == {7: [3, 4], 8: [9]}


def test_an_unreadable_process_is_no_suspect() -> None:
    holders = settled(p7={3: 11})
    deny(holders)
    assert holders.fds_of([11]) == {}


def test_a_threads_own_descriptor_is_no_suspect() -> None:
    holders = settled()
    take(holders, 7, {3: 0}, more=((3, 11),))
    assert [list(fds) for fds in holders.fds_of([11]).values()] == [[]]


def test_a_new_socket_is_looked_for_where_something_changed_last() -> None:
    holders = settled(p7={3: 11}, p8={3: 12}, p9={3: 13})
    holders.begin_poll()
    holders.update_fds(8, {4: 14})
    assert holders.candidates_for([tcp(20)])[0] == 8


def test_a_new_socket_is_looked_for_at_its_user_first() -> None:
    holders = settled()
    for pid, uid in ((7, 1), (8, 2), (9, 3)):
        take(holders, pid, {}, uid=uid)
    assert holders.candidates_for([tcp(20, uid=2)])[0] == 8


def test_whom_was_looked_at_in_vain_comes_last_until_it_changes() -> None:
    holders = settled(p7={3: 11}, p8={3: 12})
    first, second = holders.candidates_for([tcp(20)])
    holders.mark_searched(first)
    assert holders.candidates_for([tcp(20)]) == [second, first]
    holders.begin_poll()
    holders.update_fds(first, {4: 13})
    assert holders.candidates_for([tcp(20)]) == [first, second]


def test_a_new_socket_is_not_looked_for_where_it_cannot_be() -> None:
    holders = settled(p7={3: 11}, p8={3: 12})
    take(holders, 9, {}, netns=2)
    deny(holders, 8)
    assert holders.candidates_for([tcp(20)]) == [7]
    assert holders.candidates_for([]) == []


def test_a_process_that_went_was_searched_for_nothing() -> None:
    settled().mark_searched(7)


# What was read.


def test_descriptors_are_told_in_order() -> None:
    assert held_by({3: 11, 4: 0, 5: 11, 6: 12}, ((4, 11), (3, 11), (9, 13))) == {
        11: (3, 4, 5), 12: (6,), 13: (9,)
    }  # fmt: skip


def test_a_look_that_shows_what_is_known_touches_nothing() -> None:
    holders = settled(p7={3: 11})
    take(holders, 7, {3: 11})
    assert not holders.take_changes()


def test_a_denied_look_leaves_what_was_known() -> None:
    holders = settled(p7={3: 11})
    deny(holders)
    assert (holders.pids_of(11), holders.take_changes()) == ((7,), set())
    assert holders.processes[7].readable is False


def test_a_denied_look_at_a_reused_pid_inherits_nothing() -> None:
    holders = settled(p7={3: 11})
    deny(holders, start=200)
    assert (holders.pids_of(11), holders.take_changes()) == ((), {(7, 11)})


def test_a_reused_pid_holds_what_it_holds_itself() -> None:
    holders = settled(p7={3: 11, 4: 12})
    take(holders, 7, {3: 11}, start=200)
    assert holders.processes[7].held == {11: (3,)}
    assert {(7, 11), (7, 12)} <= holders.take_changes()


def test_other_facts_touch_all_that_the_process_holds() -> None:
    holders = settled(p7={3: 11, 4: 12, 5: 0}, p8={3: 11})
    holders.set_facts(7, process=process(7, comm="other"))
    assert holders.take_changes() == {(7, 11), (7, 12)}
    assert holders.processes[7].process.comm == "other"


def test_the_same_facts_touch_nothing_and_stay_the_same_object() -> None:
    holders = settled(p7={3: 11})
    before = holders.processes[7].process
    holders.set_facts(7, process=process(7))
    assert not holders.take_changes()
    assert holders.processes[7].process is before


def test_an_unreadable_process_forgets_what_the_tables_no_longer_show() -> None:
    holders = settled(p7={3: 11, 4: 11, 5: 12}, p8={3: 11})
    deny(holders)
    holders.remove_socket(7, 11)
    assert holders.processes[7].held == {12: (5,)}
    assert holders.processes[7].fds == {5: 12}
    assert (holders.pids_of(11), holders.take_changes()) == ((8,), {(7, 11)})


def test_a_change_leaves_alone_what_a_thread_holds_under_the_same_number() -> None:
    holders = settled()
    take(holders, 7, {3: 11}, more=((3, 11),))
    holders.update_fds(7, {3: None})
    assert holders.processes[7].held == {11: (3,)}


def test_a_change_repeats_no_number_that_a_thread_has_too() -> None:
    holders = settled()
    take(holders, 7, {}, more=((3, 11),))
    holders.update_fds(7, {3: 11})
    assert holders.processes[7].held == {11: (3,)}


def test_many_descriptors_on_one_socket_are_kept_in_order() -> None:
    holders = settled(p7=dict.fromkeys(range(3, 300), 11))
    assert holders.processes[7].held == {11: tuple(range(3, 300))}
    holders.update_fds(7, {5: None, 300: 11, 6: 12})
    assert holders.processes[7].held == {11: (3, 4, *range(7, 301)), 12: (6,)}


# However it came about, it is what a look at everything would show.

Step = tuple[str, int, Mapping[int, int | None]]
World = dict[int, dict[int, int]]
pids = st.integers(1, 3)
tables = st.dictionaries(st.integers(0, 5), st.integers(0, 4), max_size=5).map(
    lambda fds: dict(sorted(fds.items()))
)
changes = st.dictionaries(st.integers(0, 5), st.none() | st.integers(0, 4), max_size=4)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("take"), pids, tables),
    st.tuples(st.just("change"), pids, changes),
    st.tuples(st.just("drop"), pids, st.just({})),
)


def held(world: World) -> dict[HoldingKey, tuple[int, ...]]:
    """By key, put together in the plainest way."""
    return {
        (pid, inode): tuple(sorted(fd for fd, at in fds.items() if at == inode))
        for pid, fds in world.items()
        for inode in set(fds.values()) - {0}
    }


def apply(holders: Holders, world: World, step: Step) -> None:
    what, pid, fds = step
    if what == "take":
        world[pid] = {fd: inode for fd, inode in fds.items() if inode is not None}
        take(holders, pid, dict(world[pid]))
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


def known(holders: Holders) -> dict[HoldingKey, tuple[int, ...]]:
    return {
        (pid, inode): fds
        for pid, one in holders.processes.items()
        for inode, fds in one.held.items()
    }


@given(st.lists(steps, max_size=12))
def test_what_is_kept_is_what_a_look_at_everything_shows(
    done: Iterable[Step],
) -> None:
    holders = Holders()
    world: World = {}
    for step in done:
        apply(holders, world, step)
        assert known(holders) == held(world)
        assert {pid: one.fds for pid, one in holders.processes.items()} == world
        for inode in range(6):
            holding = {pid for pid, at in held(world) if at == inode}
            assert set(holders.pids_of(inode)) == holding
            assert len(holders.pids_of(inode)) == len(holding)


@given(st.lists(steps, max_size=6), st.lists(steps, max_size=6))
def test_every_difference_is_touched(
    first: Iterable[Step],
    then: Iterable[Step],
) -> None:
    holders = Holders()
    world: World = {}
    for step in first:
        apply(holders, world, step)
    before = held(world)
    holders.take_changes()
    for step in then:
        apply(holders, world, step)
    after = held(world)
    differ = {at for at in before.keys() | after.keys() if before.get(at) != after.get(at)}
    assert differ <= holders.take_changes()
