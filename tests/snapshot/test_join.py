"""Sockets joined to their holders, poll after poll."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import (
    CgroupInfo,
    Holding,
    HoldingKey,
    Owner,
    Process,
    Socket,
)
from agent.snapshot.holders import Holders
from agent.snapshot.holding import HoldingBuilder
from agent.snapshot.join import MAX_MISSES, Descriptor, Join, Resolution
from agent.snapshot.reading import ALL_GROUPS, Change, EndedSocket, Reading
from agent.stream.diff import is_same

from ..make import process, tcp

CONNECTION = tcp(11, "ESTABLISHED", remote_addr="127.0.0.1", remote_port=40000, direction="inbound")
UNLISTED = tcp(11, "CLOSE", local_addr=None, local_port=None, netns=None)
ASKED = UNLISTED._replace(netns=1)  # As its descriptor shows it.
NOTHING = Change(set(), set())
PLACE = CgroupInfo("/app", "app.service", None)


class Polls:
    """Polls as the poller makes them, of rows and descriptors that a test gives."""

    def __init__(self) -> None:
        self.holders = Holders()
        self.rows: dict[int, Socket] = {}
        builder = HoldingBuilder(lambda uid: Owner(uid, f"user{uid}"), {5: PLACE}.get)
        self.join = Join(self.holders, builder)
        self.asked: list[Descriptor] = []
        self.changed: frozenset[HoldingKey] = frozenset()
        self.missed: list[Holding] = []
        self.gone_unlisted: Counter[str | None] = Counter()
        self._changes: set[HoldingKey] = set()

    def holds(self, pid: int = 7, *, start: int = 100, uid: int | None = None, **fds: int) -> None:
        """Descriptor 3 leads to inode 11: ``d3=11``."""
        by = process(pid, start, uid=uid)
        self.holders.set_scan(by, 1, pid, {int(name[1:]): at for name, at in fds.items()})

    def denies(self, pid: int = 7, *, start: int = 100) -> None:
        self.holders.set_scan(process(pid, start), 1, pid, None)

    def poll(
        self,
        *rows: Socket,
        read: bool = True,
        told: Mapping[int, Socket] | None = None,
        ended: Mapping[int, Socket] | None = None,
    ) -> Mapping[HoldingKey, Holding]:
        """``rows`` are what the tables show, if they are ``read``; ``told`` what descriptors tell
        of sockets that are in none; ``ended`` sockets whose end was reported."""
        changed: set[int] = set()
        if read:
            now = {row.inode: row for row in rows}
            changed = {at for at in now.keys() | self.rows if now.get(at) != self.rows.get(at)}
            self.rows = now
        gone = ended or {}
        for inode in gone:
            self.rows.pop(inode, None)
        groups = {1: ALL_GROUPS} if read else {}
        reading = Reading(self.rows, Change(changed, set()), groups)
        ends = self.join.end({inode: EndedSocket(row) for inode, row in gone.items()})
        self.missed = [
            holding or Holding(one.socket, None, (), Owner(0, "user0")) for one, holding in ends
        ]
        self._changes |= self.holders.take_changes()
        dirty = self.join.dirty(self._changes, changed | gone.keys())
        self.asked = self.join.questions(dirty, reading, gone)
        answers = {at.inode: told[at.inode] for at in self.asked if told and at.inode in told}
        resolution = self.join.resolve(dirty, reading, gone, answers)
        joined = self.join.apply(dirty, self._changes, resolution, reading)
        self._changes.clear()
        self.changed, self.gone_unlisted = joined.changed, joined.gone_unlisted
        self.missed += joined.short_lived
        return self.join.holdings

    @property
    def doubts(self) -> list[int]:
        """The inodes of sockets whose tables the next poll is to read."""
        self._changes |= self.holders.take_changes()
        return [socket.inode for socket in self.join.doubted(self.rows, self._changes)]


@pytest.fixture
def joined() -> Polls:
    return Polls()


def test_a_row_joins_its_holder(joined: Polls) -> None:
    joined.holds(d3=11, d5=11)
    assert joined.poll(tcp(11, uid=4)) == {
        (7, 11): Holding(tcp(11, uid=4), process(), (3, 5), Owner(4, "user4"))
    }
    assert joined.changed == {(7, 11)}


def descriptors(one: Holding) -> tuple[tuple[int, ...], int]:
    return one.fds, one.omitted_fds


def test_of_many_descriptors_the_lowest_are_listed_and_the_others_counted(joined: Polls) -> None:
    joined.holds(**{f"d{fd}": 11 for fd in range(3, 103)})
    assert descriptors(joined.poll(tcp(11))[7, 11]) == (tuple(range(3, 67)), 36)
    joined.holds(**{f"d{fd}": 11 for fd in range(3, 104)})
    assert descriptors(joined.poll(tcp(11))[7, 11]) == (tuple(range(3, 67)), 37)
    assert joined.changed == {(7, 11)}
    joined.holds(**{f"d{fd}": 11 for fd in range(3, 67)})
    assert descriptors(joined.poll(tcp(11))[7, 11]) == (tuple(range(3, 67)), 0)
    assert joined.changed == {(7, 11)}


def test_one_descriptor_for_another_beyond_those_listed_is_no_change(joined: Polls) -> None:
    joined.holds(**{f"d{fd}": 11 for fd in range(3, 103)})
    first = joined.poll(tcp(11))[7, 11]
    joined.holds(**{f"d{fd}": 11 for fd in (*range(3, 102), 500)})
    assert joined.poll(tcp(11))[7, 11] is first
    assert joined.changed == frozenset()


def test_every_holder_of_a_socket_is_found(joined: Polls) -> None:
    joined.holds(7, d3=11)
    joined.holds(8, d4=11)
    assert {at: one.fds for at, one in joined.poll(tcp(11)).items()} == {
        (7, 11): (3,), (8, 11): (4,)
    }  # fmt: skip


def test_where_nothing_changed_the_holdings_are_the_same_object(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11), tcp(12))
    for read in (True, False):
        assert joined.poll(tcp(11), tcp(12), read=read) is first
        assert joined.changed == frozenset()


def test_a_snapshot_once_taken_stays_as_it_is(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11))
    joined.holds()
    assert joined.poll() == {}
    assert first.keys() == {(7, 11)}


@pytest.mark.parametrize(("uid", "owner"), [(9, Owner(9, "user9")), (None, None)])
def test_without_a_uid_in_the_table_the_process_tells_the_owner(
    joined: Polls, uid: int | None, owner: Owner | None
) -> None:
    joined.holds(uid=uid, d3=11)
    assert joined.poll(tcp(11, uid=None))[7, 11].owner == owner


# Close means gone.


def test_a_closed_descriptor_is_a_close_though_the_row_is_there(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.holds()
    assert joined.poll(tcp(11)) == {}
    assert joined.changed == {(7, 11)}


def test_a_row_missing_once_changes_nothing(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11))
    for _ in range(3):
        assert joined.poll() is first
        assert (joined.asked, joined.doubts) == ([], [11])
        assert joined.poll(tcp(11)) is first
        assert not joined.doubts


def test_only_readings_count_as_misses(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11))
    joined.poll()
    for _ in range(3 * MAX_MISSES):
        assert joined.poll(read=False) is first
        assert joined.asked == []


def test_a_row_missing_again_makes_the_descriptor_tell(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.poll()
    assert joined.poll(told={11: ASKED})[7, 11].socket == UNLISTED
    assert joined.asked == [Descriptor(7, 3, 11)]
    assert not joined.doubts


def test_what_was_in_no_table_is_not_asked_for_again(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(told={11: ASKED})
    for _ in range(3):
        assert joined.poll() is first
        assert joined.asked == []
        assert not joined.doubts


def test_an_unbound_socket_that_is_bound_later_is_read_from_its_table(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(told={11: ASKED})
    assert joined.poll(tcp(11))[7, 11].socket == tcp(11)


def test_a_descriptor_closed_before_it_was_asked_holds_nothing(joined: Polls) -> None:
    joined.holds(d3=11)
    assert joined.poll() == {}


def test_an_unlisted_socket_passed_on_is_still_what_it_was(joined: Polls) -> None:
    joined.holds(7, d3=11)
    joined.poll(told={11: ASKED})
    joined.holds(7)
    joined.holds(8, d5=11)
    found = joined.poll(told={11: ASKED})
    assert {at: one.socket for at, one in found.items()} == {(8, 11): UNLISTED}
    assert joined.changed == {(7, 11), (8, 11)}


def test_descriptors_that_cannot_be_read_stand_as_they_were(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11))
    joined.denies()
    assert joined.poll(tcp(11)) is first


def test_a_process_that_went_holds_nothing(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.holders.drop(7)
    assert joined.poll() == {}


@pytest.mark.parametrize("readable", [True, False])
def test_a_reused_pid_never_inherits(joined: Polls, readable: bool) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    if readable:
        joined.holds(start=200, d3=11)
        assert joined.poll(tcp(11))[7, 11].process == process(7, 200)
    else:
        joined.denies(start=200)
        assert (7, 11) not in joined.poll()


def test_facts_that_changed_are_in_every_holding(joined: Polls) -> None:
    joined.holds(d3=11, d4=12)
    joined.poll(tcp(11), tcp(12))
    joined.holders.set_facts(7, process=process(7, comm="other"))
    found = joined.poll(tcp(11), tcp(12))
    assert {one.process.comm for one in found.values() if one.process} == {"other"}
    assert joined.changed == {(7, 11), (7, 12)}


# Rows without a holder.


def test_at_first_a_row_without_a_holder_is_nameless_at_once(joined: Polls) -> None:
    without_holder = Holding(tcp(11), None, (), Owner(0, "user0"))
    assert joined.poll(tcp(11)) == {(None, 11): without_holder}


def test_later_a_row_without_a_holder_waits_one_poll(joined: Polls) -> None:
    joined.poll()
    assert joined.poll(tcp(11)) == {}
    assert joined.poll(tcp(11)).keys() == {(None, 11)}
    assert not joined.doubts


def test_a_row_whose_holder_is_found_at_the_next_poll_never_was_nameless(joined: Polls) -> None:
    joined.poll()
    joined.poll(tcp(11))
    joined.holds(d3=11)
    assert joined.poll(tcp(11)).keys() == {(7, 11)}
    assert joined.changed == {(7, 11)}


def test_a_row_that_is_gone_before_a_holder_was_found_came_and_went(joined: Polls) -> None:
    joined.poll()
    joined.poll(tcp(11))
    assert joined.doubts == [11]
    assert joined.poll() == {}
    assert joined.changed == frozenset()
    assert joined.missed == [without_holder(tcp(11), user="user0")]
    joined.poll()
    assert (joined.missed, joined.doubts) == ([], [])


def without_holder(socket: Socket, user: str) -> Holding:
    return Holding(socket, None, (), Owner(0, user))


def test_what_is_found_while_a_poll_is_joined_is_for_the_next_one(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    dirty = joined.join.dirty((), ())
    joined.holders.update_fds(7, {4: 11})
    joined.join.apply(dirty, set(), Resolution({}, {}), Reading(joined.rows, NOTHING, {}))
    assert joined.poll(tcp(11))[7, 11].fds == (3, 4)


# Sockets whose end was reported.


def test_a_published_socket_that_ended_is_gone_though_its_descriptor_was_not_read_again(
    joined: Polls,
) -> None:
    joined.holds(d3=11)
    row = tcp(11, cookie=5)
    joined.poll(row)
    assert joined.poll(ended={11: row}) == {}
    assert joined.changed == {(7, 11)}
    assert joined.missed == []


def test_a_socket_that_ended_as_it_was_found_came_and_went_with_its_holders(
    joined: Polls,
) -> None:
    joined.poll()
    joined.holds(7, d3=11)
    joined.holds(8, d4=11)
    row = tcp(11, cookie=5)
    assert joined.poll(ended={11: row}) == {}
    held = [(one.process.pid, one.fds) for one in joined.missed if one.process]
    assert held == [(7, (3,)), (8, (4,))]
    joined.poll()
    assert joined.missed == []


def test_a_socket_that_ended_without_a_holder_came_and_went(joined: Polls) -> None:
    joined.poll()
    row = tcp(11, cookie=5)
    joined.poll(row)  # It waits for a holder.
    assert joined.poll(ended={11: row}) == {}
    assert joined.missed == [without_holder(row, user="user0")]


def test_a_socket_that_was_reported_is_not_reported_again_when_its_end_is(joined: Polls) -> None:
    joined.poll()
    row = tcp(11, cookie=5)
    joined.poll(row)
    joined.poll()  # Its row is gone: it came and went.
    joined.poll(ended={11: row})
    assert joined.missed == []


def test_a_socket_that_lingers_after_it_was_closed_is_not_reported_again(joined: Polls) -> None:
    row = tcp(11, cookie=5)
    joined.holds(d3=11)
    joined.poll(row)
    joined.holds()
    joined.poll()  # What is left of it has no inode.
    joined.poll(ended={11: row})
    assert joined.missed == []


def test_a_socket_closed_behind_the_reading_of_its_table_is_closed_once(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.holds()
    assert joined.poll(tcp(11)) == {}  # Its holder is gone, its row not yet.
    assert joined.doubts == [11]
    for _ in range(2):
        assert joined.poll() == {}
        assert joined.changed == frozenset()
        assert (joined.missed, joined.doubts) == ([], [])


def test_sockets_in_no_table_that_went_are_counted(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(told={11: ASKED})
    joined.holds()
    joined.poll()
    assert joined.gone_unlisted == {"tcp": 1}
    joined.poll()
    assert joined.gone_unlisted == {}


def test_a_holder_that_turns_up_takes_the_nameless_rows_place(joined: Polls) -> None:
    joined.poll(tcp(11))
    joined.holds(d3=11)
    assert joined.poll(tcp(11)).keys() == {(7, 11)}
    assert joined.changed == {(None, 11), (7, 11)}


def test_a_nameless_row_missing_once_is_not_gone(joined: Polls) -> None:
    first = joined.poll(tcp(11))
    assert joined.poll() is first
    assert joined.poll() == {}


def test_a_socket_whose_holder_cannot_be_seen_any_longer_is_nameless(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.holds()
    joined.poll(tcp(11))
    assert joined.poll(tcp(11)).keys() == {(None, 11)}


def test_orphans_wait_for_a_holder_and_have_none(joined: Polls) -> None:
    joined.poll(tcp(10))
    joined.poll(*map(tcp, (10, 11, 12, 13)))
    joined.holds(d3=12)
    del joined.rows[13]
    assert [socket.inode for socket in joined.join.orphans(joined.rows)] == [11]


def test_a_new_socket_without_a_row_waits_one_poll_for_it(joined: Polls) -> None:
    joined.poll()
    joined.holds(d3=11)
    assert joined.poll(told={11: ASKED}) == {}
    assert (joined.asked, joined.doubts) == ([Descriptor(7, 3, 11)], [11])
    assert joined.poll(tcp(11))[7, 11].socket == tcp(11)
    assert not joined.doubts


def test_a_new_socket_without_a_row_is_what_its_descriptor_shows_at_the_next_poll(
    joined: Polls,
) -> None:
    joined.poll()
    joined.holds(d3=11)
    joined.poll(told={11: ASKED})
    assert joined.poll(told={11: ASKED}, read=False) == {}
    assert joined.poll(told={11: ASKED})[7, 11].socket == UNLISTED
    assert not joined.doubts


def test_a_new_socket_that_no_table_lists_waits_for_none(joined: Polls) -> None:
    joined.poll()
    joined.holds(d3=11)
    vsock = Socket(11, "vsock", "vsock", None, None)
    assert joined.poll(told={11: vsock})[7, 11].socket == vsock


def test_a_new_socket_whose_descriptor_leads_elsewhere_by_now_is_asked_for_again(
    joined: Polls,
) -> None:
    joined.poll()
    joined.holds(d3=11)
    assert joined.poll() == {}  # It was moved to another descriptor, for one.
    assert joined.poll(told={11: ASKED})[7, 11].socket == UNLISTED
    assert not joined.doubts


def test_a_new_socket_that_is_closed_before_it_was_asked_is_not_waited_for(joined: Polls) -> None:
    joined.poll()
    joined.holds(d3=11)
    joined.poll()
    joined.holds()
    joined.poll()
    assert (joined.asked, joined.join.holdings, joined.doubts) == ([], {}, [])


@pytest.mark.parametrize(("cgroup", "place"), [(5, PLACE), (6, None), (None, None)])
def test_a_nameless_socket_is_told_where_it_is_accounted(
    joined: Polls, cgroup: int | None, place: CgroupInfo | None
) -> None:
    assert joined.poll(tcp(11, cgroup_id=cgroup))[None, 11].cgroup == place


def test_a_holders_socket_is_accounted_where_its_process_is(joined: Polls) -> None:
    joined.holds(d3=11)
    assert joined.poll(tcp(11, cgroup_id=5))[7, 11].cgroup is None


# Peers.


def pair(inode: int, peer: int) -> Socket:
    return Socket(inode, "unix", "unix", "stream", "CONNECTED", netns=1, peer_inode=peer)


def test_the_holder_of_the_other_end_is_told(joined: Polls) -> None:
    joined.holds(7, d3=11)
    joined.holds(8, d4=12)
    found = joined.poll(pair(11, 12), pair(12, 11), pair(13, 99))
    assert {at: one.peer_pid for at, one in found.items()} == {
        (7, 11): 8, (8, 12): 7, (None, 13): None
    }  # fmt: skip


def test_the_other_end_passed_to_a_child_is_the_childs(joined: Polls) -> None:
    joined.holds(7, d3=11, d4=12)
    joined.poll(pair(11, 12), pair(12, 11))
    joined.holds(7, d3=11)
    joined.holds(8, d4=12)
    found = joined.poll(pair(11, 12), pair(12, 11))
    assert {at: one.peer_pid for at, one in found.items()} == {(7, 11): 8, (8, 12): 7}


# Directions.


def test_a_connection_keeps_its_direction_when_its_listener_closes(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(CONNECTION)
    now = CONNECTION._replace(direction="outbound", state="CLOSE_WAIT")
    for one in (now, now._replace(state="LAST_ACK", direction=None)):
        assert joined.poll(one)[7, 11].socket == one._replace(direction="inbound")


@pytest.mark.parametrize(
    "now",
    [
        tcp(11, "LISTEN", direction="listen"),
        CONNECTION._replace(remote_port=40001, direction="outbound"),
        CONNECTION._replace(state="CLOSE", direction=None),
    ],
)
def test_another_connection_has_its_own_direction(joined: Polls, now: Socket) -> None:
    joined.holds(d3=11)
    joined.poll(CONNECTION)
    assert joined.poll(now)[7, 11].socket == now


def test_a_direction_found_out_later_is_taken(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(CONNECTION._replace(direction=None))
    assert joined.poll(CONNECTION)[7, 11].socket == CONNECTION


# Whatever happened, the holdings are what a fresh look at everything shows.


class State(NamedTuple):
    """``processes``: pid → (start ticks, descriptors); ``rows``: inodes and states of sockets."""

    processes: dict[int, tuple[int, dict[int, int]]]
    rows: dict[int, str]


states = st.builds(
    State,
    st.dictionaries(
        st.integers(1, 3),
        st.tuples(
            st.integers(1, 2),
            st.dictionaries(st.integers(3, 5), st.integers(0, 4), max_size=3).map(
                lambda fds: dict(sorted(fds.items()))
            ),
        ),
        max_size=3,
    ),
    st.dictionaries(
        st.integers(1, 4), st.sampled_from(["LISTEN", "ESTABLISHED", "CLOSE"]), max_size=4
    ),
)


def show(joined: Polls, state: State) -> Mapping[HoldingKey, Holding]:
    holders = joined.holders
    for pid in holders.processes.keys() - state.processes.keys():
        holders.drop(pid)
    for pid, (start, fds) in state.processes.items():
        known = holders.processes.get(pid)
        if known is None or known.process.start_ticks != start:
            by: Process = process(pid, start)
            holders.set_scan(by, 1, pid, dict(fds))
        else:
            gone: dict[int, int | None] = dict.fromkeys(known.fds.keys() - fds.keys())
            moved = {fd: at for fd, at in fds.items() if known.fds.get(fd) != at}
            holders.update_fds(pid, {**gone, **moved})
    rows = [tcp(inode, state) for inode, state in state.rows.items()]
    told = {inode: tcp(inode, "CLOSE", local_addr=None) for inode in range(5)}
    return joined.poll(*rows, told=told)


def tracked(holdings: Mapping[HoldingKey, Holding]) -> Mapping[HoldingKey, tuple[object, ...]]:
    return {at: (one.socket[:11], one.process, one.fds, one.owner) for at, one in holdings.items()}


@given(st.lists(states, min_size=1, max_size=6))
def test_what_was_kept_from_poll_to_poll_is_what_a_first_one_shows(run: list[State]) -> None:
    joined = Polls()
    for state in run:
        before = joined.join.holdings
        after = show(joined, state)
        keys = before.keys() | after.keys()
        differ = {at for at in keys if before.get(at) != after.get(at)}
        assert differ <= joined.changed <= keys
    # What waits, and what is missing from a table, takes one poll more to be believed.
    for _ in range(MAX_MISSES):
        show(joined, run[-1])
    assert tracked(joined.join.holdings) == tracked(show(Polls(), run[-1]))
    assert not joined.doubts


@given(st.lists(states, min_size=2, max_size=6))
def test_no_holding_is_gone_while_its_descriptor_leads_there(run: list[State]) -> None:
    joined = Polls()
    for state in run:
        before = dict(joined.join.holdings)
        after = show(joined, state)
        for pid, (start, fds) in state.processes.items():
            for inode in set(fds.values()) - {0}:
                was = before.get((pid, inode))
                if was is not None and was.process == process(pid, start):
                    assert is_same(was, after[pid, inode])


@given(states)
def test_the_same_again_changes_nothing(state: State) -> None:
    joined = Polls()
    first = show(joined, state)
    assert show(joined, state) is first


def test_sockets_whose_end_is_never_reported_displace_no_cookie(
    joined: Polls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.snapshot.join.MAX_UNREPORTED", 2)
    row = tcp(11)._replace(cookie=1)
    units = [
        Socket(at, "unix", "unix", "stream", "CONNECTED", netns=1, cookie=at) for at in (21, 22, 23)
    ]
    joined.holds(d3=11, d4=21, d5=22, d6=23)
    joined.poll(row, *units)
    joined.holds(d4=21, d5=22, d6=23)
    joined.poll(*units)  # Closed; the kernel still sends what it has left to send.
    joined.poll(*units, ended={11: row})
    assert joined.missed == []


def test_sockets_in_no_table_that_went_are_counted_in_their_poll_only(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(told={11: ASKED})
    joined.holds()
    joined.poll()
    assert joined.gone_unlisted == {"tcp": 1}
    joined.poll()
    assert not joined.gone_unlisted


def test_a_socket_that_is_gone_is_not_opened_without_a_holder(joined: Polls) -> None:
    row = Socket(11, "unix", "unix", "stream", "CONNECTED", netns=1)
    joined.holds(d3=11)
    joined.poll(row)
    joined.holds()
    joined.poll(row)  # It is on its way to another process,
    joined.poll()  # which closed it.
    assert joined.join.holdings == {}
    assert joined.missed == []
