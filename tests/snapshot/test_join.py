"""The join of sockets and their holders, over several polls."""

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
WITH_NETNS = UNLISTED._replace(netns=1)  # The socket as its descriptor shows it.
NOTHING = Change(set(), set())
CGROUP = CgroupInfo("/app", "app.service", None)


class Polls:
    """Polls, made as the poller makes them, of the rows and descriptors that a test passes."""

    def __init__(self) -> None:
        self.holders = Holders()
        self.rows: dict[int, Socket] = {}
        builder = HoldingBuilder(lambda uid: Owner(uid, f"user{uid}"), {5: CGROUP}.get)
        self.join = Join(self.holders, builder)
        self.questions: list[Descriptor] = []
        self.changed: frozenset[HoldingKey] = frozenset()
        self.short_lived: list[Holding] = []
        self.gone_unlisted: Counter[str | None] = Counter()
        self._changes: set[HoldingKey] = set()

    def holds(self, pid: int = 7, *, start: int = 100, uid: int | None = None, **fds: int) -> None:
        """Record a scan of a process; ``d3=11``: its descriptor 3 refers to inode 11."""
        by = process(pid, start, uid=uid)
        self.holders.set_scan(by, 1, pid, {int(name[1:]): at for name, at in fds.items()})

    def denies(self, pid: int = 7, *, start: int = 100) -> None:
        """Record a scan of a process whose descriptors may not be read."""
        self.holders.set_scan(process(pid, start), 1, pid, None)

    def poll(
        self,
        *rows: Socket,
        read: bool = True,
        answers: Mapping[int, Socket] | None = None,
        ended: Mapping[int, Socket] | None = None,
    ) -> Mapping[HoldingKey, Holding]:
        """Make a poll; return its holdings.

        ``rows`` are the rows of the tables, if ``read``. ``answers`` are sockets that are in no
        table, as their descriptors show them. ``ended`` are sockets whose end was reported.
        """
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
        self.short_lived = [
            holding or Holding(one.socket, None, (), Owner(0, "user0")) for one, holding in ends
        ]
        self._changes |= self.holders.take_changes()
        dirty = self.join.dirty(self._changes, changed | gone.keys())
        self.questions = self.join.questions(dirty, reading, gone)
        found = {
            at.inode: answers[at.inode] for at in self.questions if answers and at.inode in answers
        }
        resolution = self.join.resolve(dirty, reading, gone, found)
        joined = self.join.apply(dirty, self._changes, resolution, reading)
        self._changes.clear()
        self.changed, self.gone_unlisted = joined.changed, joined.gone_unlisted
        self.short_lived += joined.short_lived
        return self.join.holdings

    @property
    def doubted(self) -> list[int]:
        """Return the inodes of the sockets whose tables the next poll must read."""
        self._changes |= self.holders.take_changes()
        return [socket.inode for socket in self.join.doubted(self.rows, self._changes)]


@pytest.fixture
def joined() -> Polls:
    return Polls()


def test_a_row_and_its_holder_make_a_holding(joined: Polls) -> None:
    joined.holds(d3=11, d5=11)
    assert joined.poll(tcp(11, uid=4)) == {
        (7, 11): Holding(tcp(11, uid=4), process(), (3, 5), Owner(4, "user4"))
    }
    assert joined.changed == {(7, 11)}


def descriptors(one: Holding) -> tuple[tuple[int, ...], int]:
    return one.fds, one.omitted_fds


def test_the_lowest_of_many_descriptors_are_listed_and_the_others_counted(joined: Polls) -> None:
    joined.holds(**{f"d{fd}": 11 for fd in range(3, 103)})
    assert descriptors(joined.poll(tcp(11))[7, 11]) == (tuple(range(3, 67)), 36)
    joined.holds(**{f"d{fd}": 11 for fd in range(3, 104)})
    assert descriptors(joined.poll(tcp(11))[7, 11]) == (tuple(range(3, 67)), 37)
    assert joined.changed == {(7, 11)}
    joined.holds(**{f"d{fd}": 11 for fd in range(3, 67)})
    assert descriptors(joined.poll(tcp(11))[7, 11]) == (tuple(range(3, 67)), 0)
    assert joined.changed == {(7, 11)}


def test_a_replaced_descriptor_that_is_not_listed_is_no_change(joined: Polls) -> None:
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


def test_without_a_change_the_holdings_are_the_same_object(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11), tcp(12))
    for read in (True, False):
        assert joined.poll(tcp(11), tcp(12), read=read) is first
        assert joined.changed == frozenset()


def test_a_later_poll_does_not_modify_the_holdings_of_an_earlier_one(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11))
    joined.holds()
    assert joined.poll() == {}
    assert first.keys() == {(7, 11)}


@pytest.mark.parametrize(("uid", "owner"), [(9, Owner(9, "user9")), (None, None)])
def test_without_a_uid_in_the_table_the_owner_is_that_of_the_process(
    joined: Polls, uid: int | None, owner: Owner | None
) -> None:
    joined.holds(uid=uid, d3=11)
    assert joined.poll(tcp(11, uid=None))[7, 11].owner == owner


# Closed sockets.


def test_a_closed_descriptor_ends_the_holding_although_the_row_remains(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.holds()
    assert joined.poll(tcp(11)) == {}
    assert joined.changed == {(7, 11)}


def test_a_row_that_is_missing_once_changes_nothing(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11))
    for _ in range(3):
        assert joined.poll() is first
        assert (joined.questions, joined.doubted) == ([], [11])
        assert joined.poll(tcp(11)) is first
        assert not joined.doubted


def test_a_row_is_not_missing_when_its_table_is_not_read(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11))
    joined.poll()
    for _ in range(3 * MAX_MISSES):
        assert joined.poll(read=False) is first
        assert joined.questions == []


def test_a_socket_whose_row_is_missing_twice_is_identified_by_its_descriptor(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.poll()
    assert joined.poll(answers={11: WITH_NETNS})[7, 11].socket == UNLISTED
    assert joined.questions == [Descriptor(7, 3, 11)]
    assert not joined.doubted


def test_a_socket_that_is_in_no_table_is_identified_once(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(answers={11: WITH_NETNS})
    for _ in range(3):
        assert joined.poll() is first
        assert joined.questions == []
        assert not joined.doubted


def test_an_unbound_socket_that_is_bound_later_is_read_from_its_table(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(answers={11: WITH_NETNS})
    assert joined.poll(tcp(11))[7, 11].socket == tcp(11)


def test_a_descriptor_that_is_closed_before_it_is_read_holds_nothing(joined: Polls) -> None:
    joined.holds(d3=11)
    assert joined.poll() == {}


def test_an_unlisted_socket_that_is_passed_to_another_process_stays_the_same(joined: Polls) -> None:
    joined.holds(7, d3=11)
    joined.poll(answers={11: WITH_NETNS})
    joined.holds(7)
    joined.holds(8, d5=11)
    found = joined.poll(answers={11: WITH_NETNS})
    assert {at: one.socket for at, one in found.items()} == {(8, 11): UNLISTED}
    assert joined.changed == {(7, 11), (8, 11)}


def test_descriptors_that_may_no_longer_be_read_stay_as_they_were(joined: Polls) -> None:
    joined.holds(d3=11)
    first = joined.poll(tcp(11))
    joined.denies()
    assert joined.poll(tcp(11)) is first


def test_a_process_that_is_gone_holds_nothing(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.holders.drop(7)
    assert joined.poll() == {}


@pytest.mark.parametrize("readable", [True, False])
def test_a_process_with_a_reused_pid_inherits_no_socket(joined: Polls, readable: bool) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    if readable:
        joined.holds(start=200, d3=11)
        assert joined.poll(tcp(11))[7, 11].process == process(7, 200)
    else:
        joined.denies(start=200)
        assert (7, 11) not in joined.poll()


def test_changed_facts_are_in_every_holding_of_the_process(joined: Polls) -> None:
    joined.holds(d3=11, d4=12)
    joined.poll(tcp(11), tcp(12))
    joined.holders.set_facts(7, process=process(7, comm="other"))
    found = joined.poll(tcp(11), tcp(12))
    assert {one.process.comm for one in found.values() if one.process} == {"other"}
    assert joined.changed == {(7, 11), (7, 12)}


# Rows without a holder.


def test_in_the_first_poll_a_row_without_a_holder_is_published_at_once(joined: Polls) -> None:
    without_holder = Holding(tcp(11), None, (), Owner(0, "user0"))
    assert joined.poll(tcp(11)) == {(None, 11): without_holder}


def test_in_later_polls_a_row_without_a_holder_is_published_one_poll_late(joined: Polls) -> None:
    joined.poll()
    assert joined.poll(tcp(11)) == {}
    assert joined.poll(tcp(11)).keys() == {(None, 11)}
    assert not joined.doubted


def test_a_row_whose_holder_is_found_at_the_next_poll_is_published_with_it_only(
    joined: Polls,
) -> None:
    joined.poll()
    joined.poll(tcp(11))
    joined.holds(d3=11)
    assert joined.poll(tcp(11)).keys() == {(7, 11)}
    assert joined.changed == {(7, 11)}


def test_a_row_that_is_gone_before_its_holder_is_found_is_short_lived(joined: Polls) -> None:
    joined.poll()
    joined.poll(tcp(11))
    assert joined.doubted == [11]
    assert joined.poll() == {}
    assert joined.changed == frozenset()
    assert joined.short_lived == [without_holder(tcp(11), user="user0")]
    joined.poll()
    assert (joined.short_lived, joined.doubted) == ([], [])


def without_holder(socket: Socket, user: str) -> Holding:
    return Holding(socket, None, (), Owner(0, user))


def test_changes_of_holders_during_a_join_are_published_by_the_next_poll(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    dirty = joined.join.dirty((), ())
    joined.holders.update_fds(7, {4: 11})
    joined.join.apply(dirty, set(), Resolution({}, {}), Reading(joined.rows, NOTHING, {}))
    assert joined.poll(tcp(11))[7, 11].fds == (3, 4)


# Sockets whose end was reported.


def test_a_published_socket_that_ended_is_gone_although_its_descriptor_was_not_reread(
    joined: Polls,
) -> None:
    joined.holds(d3=11)
    row = tcp(11, cookie=5)
    joined.poll(row)
    assert joined.poll(ended={11: row}) == {}
    assert joined.changed == {(7, 11)}
    assert joined.short_lived == []


def test_a_socket_that_ends_before_it_is_published_is_short_lived_with_its_holders(
    joined: Polls,
) -> None:
    joined.poll()
    joined.holds(7, d3=11)
    joined.holds(8, d4=11)
    row = tcp(11, cookie=5)
    assert joined.poll(ended={11: row}) == {}
    held = [(one.process.pid, one.fds) for one in joined.short_lived if one.process]
    assert held == [(7, (3,)), (8, (4,))]
    joined.poll()
    assert joined.short_lived == []


def test_a_socket_that_ends_without_a_holder_is_short_lived(joined: Polls) -> None:
    joined.poll()
    row = tcp(11, cookie=5)
    joined.poll(row)  # It waits for a holder.
    assert joined.poll(ended={11: row}) == {}
    assert joined.short_lived == [without_holder(row, user="user0")]


def test_a_short_lived_socket_is_not_reported_again_when_its_end_is(joined: Polls) -> None:
    joined.poll()
    row = tcp(11, cookie=5)
    joined.poll(row)
    joined.poll()  # Its row is gone: it is short-lived.
    joined.poll(ended={11: row})
    assert joined.short_lived == []


def test_a_closed_socket_in_a_closing_state_is_not_reported_again(joined: Polls) -> None:
    row = tcp(11, cookie=5)
    joined.holds(d3=11)
    joined.poll(row)
    joined.holds()
    joined.poll()  # The kernel still has the connection, without an inode.
    joined.poll(ended={11: row})
    assert joined.short_lived == []


def test_a_socket_that_closes_after_its_table_was_read_is_closed_once(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.holds()
    assert joined.poll(tcp(11)) == {}  # Its holder is gone, but not yet its row.
    assert joined.doubted == [11]
    for _ in range(2):
        assert joined.poll() == {}
        assert joined.changed == frozenset()
        assert (joined.short_lived, joined.doubted) == ([], [])


def test_sockets_in_no_table_that_are_gone_are_counted(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(answers={11: WITH_NETNS})
    joined.holds()
    joined.poll()
    assert joined.gone_unlisted == {"tcp": 1}
    joined.poll()
    assert joined.gone_unlisted == {}


def test_a_holder_that_is_found_later_replaces_the_holding_without_a_process(joined: Polls) -> None:
    joined.poll(tcp(11))
    joined.holds(d3=11)
    assert joined.poll(tcp(11)).keys() == {(7, 11)}
    assert joined.changed == {(None, 11), (7, 11)}


def test_a_row_without_a_holder_that_is_missing_once_is_not_gone(joined: Polls) -> None:
    first = joined.poll(tcp(11))
    assert joined.poll() is first
    assert joined.poll() == {}


def test_a_socket_whose_holder_is_no_longer_visible_has_no_process(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(tcp(11))
    joined.holds()
    joined.poll(tcp(11))
    assert joined.poll(tcp(11)).keys() == {(None, 11)}


def test_orphans_are_the_sockets_that_wait_for_a_holder_and_have_none(joined: Polls) -> None:
    joined.poll(tcp(10))
    joined.poll(*map(tcp, (10, 11, 12, 13)))
    joined.holds(d3=12)
    del joined.rows[13]
    assert [socket.inode for socket in joined.join.orphans(joined.rows)] == [11]


def test_a_new_socket_without_a_row_waits_one_poll_for_a_row(joined: Polls) -> None:
    joined.poll()
    joined.holds(d3=11)
    assert joined.poll(answers={11: WITH_NETNS}) == {}
    assert (joined.questions, joined.doubted) == ([Descriptor(7, 3, 11)], [11])
    assert joined.poll(tcp(11))[7, 11].socket == tcp(11)
    assert not joined.doubted


def test_a_new_socket_without_a_row_is_identified_by_its_descriptor_at_the_next_poll(
    joined: Polls,
) -> None:
    joined.poll()
    joined.holds(d3=11)
    joined.poll(answers={11: WITH_NETNS})
    assert joined.poll(answers={11: WITH_NETNS}, read=False) == {}
    assert joined.poll(answers={11: WITH_NETNS})[7, 11].socket == UNLISTED
    assert not joined.doubted


def test_a_new_socket_of_a_protocol_without_a_table_is_published_at_once(joined: Polls) -> None:
    joined.poll()
    joined.holds(d3=11)
    vsock = Socket(11, "vsock", "vsock", None, None)
    assert joined.poll(answers={11: vsock})[7, 11].socket == vsock


def test_a_new_socket_that_is_not_identified_is_tried_again_at_the_next_poll(
    joined: Polls,
) -> None:
    joined.poll()
    joined.holds(d3=11)
    assert joined.poll() == {}  # For example, it was moved to another descriptor.
    assert joined.poll(answers={11: WITH_NETNS})[7, 11].socket == UNLISTED
    assert not joined.doubted


def test_a_new_socket_that_is_closed_before_it_is_identified_is_forgotten(joined: Polls) -> None:
    joined.poll()
    joined.holds(d3=11)
    joined.poll()
    joined.holds()
    joined.poll()
    assert (joined.questions, joined.join.holdings, joined.doubted) == ([], {}, [])


@pytest.mark.parametrize(("cgroup_id", "cgroup"), [(5, CGROUP), (6, None), (None, None)])
def test_a_socket_without_a_holder_has_the_cgroup_of_its_row(
    joined: Polls, cgroup_id: int | None, cgroup: CgroupInfo | None
) -> None:
    assert joined.poll(tcp(11, cgroup_id=cgroup_id))[None, 11].cgroup == cgroup


def test_a_socket_with_a_holder_has_the_cgroup_of_its_process_only(joined: Polls) -> None:
    joined.holds(d3=11)
    assert joined.poll(tcp(11, cgroup_id=5))[7, 11].cgroup is None


# Peers.


def pair(inode: int, peer: int) -> Socket:
    return Socket(inode, "unix", "unix", "stream", "CONNECTED", netns=1, peer_inode=peer)


def test_peer_pid_is_the_holder_of_the_other_end(joined: Polls) -> None:
    joined.holds(7, d3=11)
    joined.holds(8, d4=12)
    found = joined.poll(pair(11, 12), pair(12, 11), pair(13, 99))
    assert {at: one.peer_pid for at, one in found.items()} == {
        (7, 11): 8, (8, 12): 7, (None, 13): None
    }  # fmt: skip


def test_peer_pid_changes_when_the_other_end_is_passed_to_a_child(joined: Polls) -> None:
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


def test_a_direction_that_is_known_later_is_used(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(CONNECTION._replace(direction=None))
    assert joined.poll(CONNECTION)[7, 11].socket == CONNECTION


# After any changes, the holdings equal those of a first poll.


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
    answers = {inode: tcp(inode, "CLOSE", local_addr=None) for inode in range(5)}
    return joined.poll(*rows, answers=answers)


def tracked(holdings: Mapping[HoldingKey, Holding]) -> Mapping[HoldingKey, tuple[object, ...]]:
    return {at: (one.socket[:11], one.process, one.fds, one.owner) for at, one in holdings.items()}


@given(st.lists(states, min_size=1, max_size=6))
def test_the_holdings_after_several_polls_equal_those_of_a_first_poll(run: list[State]) -> None:
    joined = Polls()
    for state in run:
        before = joined.join.holdings
        after = show(joined, state)
        keys = before.keys() | after.keys()
        differ = {at for at in keys if before.get(at) != after.get(at)}
        assert differ <= joined.changed <= keys
    # Sockets that wait for a row or a holder, and missing rows, take MAX_MISSES polls.
    for _ in range(MAX_MISSES):
        show(joined, run[-1])
    assert tracked(joined.join.holdings) == tracked(show(Polls(), run[-1]))
    assert not joined.doubted


@given(st.lists(states, min_size=2, max_size=6))
def test_no_holding_is_gone_while_a_descriptor_refers_to_its_socket(run: list[State]) -> None:
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
def test_a_poll_of_the_same_state_changes_nothing(state: State) -> None:
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
    joined.poll(*units)  # Closed; the kernel still sends queued data.
    joined.poll(*units, ended={11: row})
    assert joined.short_lived == []


def test_sockets_in_no_table_that_are_gone_are_counted_in_one_poll_only(joined: Polls) -> None:
    joined.holds(d3=11)
    joined.poll(answers={11: WITH_NETNS})
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
    joined.poll(row)  # It is in transit to another process,
    joined.poll()  # which closed it.
    assert joined.join.holdings == {}
    assert joined.short_lived == []
