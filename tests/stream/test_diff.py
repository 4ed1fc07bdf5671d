import pytest
from hypothesis import given

from agent.model import (
    Closed,
    Coverage,
    Delta,
    Holding,
    HoldingKey,
    Opened,
    Owner,
    ShortLived,
    Snapshot,
    SocketEnd,
    TcpFigures,
    Updated,
)
from agent.stream.diff import DeltaTracker, is_changed, is_same

from ..make import (
    FULL_COVERAGE,
    holding,
    key,
    process,
    snapshot,
    tcp,
    without_holder,
)
from ..strategies import runs


def deltas(*polls: Snapshot) -> list[Delta]:
    """Return the deltas of the last of these polls."""
    tracker = DeltaTracker()
    found: list[Delta] = []
    for poll in polls:
        found = tracker.advance(poll)
    return found


def test_the_first_snapshot_has_no_deltas() -> None:
    assert deltas(snapshot(holding())) == []


def test_equal_snapshots_have_no_deltas() -> None:
    assert deltas(snapshot(holding()), snapshot(holding())) == []


def test_a_new_holding_opens() -> None:
    one, two = holding(tcp(1)), holding(tcp(2))
    assert deltas(snapshot(one), snapshot(one, two)) == [Opened(two)]


def test_a_socket_shared_by_two_processes_opens_once_each() -> None:
    one, two = holding(by=process(7)), holding(by=process(8))
    assert deltas(snapshot(one), snapshot(one, two)) == [Opened(two)]


def test_a_closed_socket_closes() -> None:
    one = holding()
    assert deltas(snapshot(one), snapshot(others=[process()])) == [Closed(one, "closed", None)]


def test_another_omitted_descriptor_is_an_update() -> None:
    one = holding(fds=tuple(range(64)))._replace(omitted_fds=1)
    more = one._replace(omitted_fds=2)
    assert deltas(snapshot(one), snapshot(more)) == [Updated(more, one)]


def test_the_sockets_of_an_exited_process_close_as_exited() -> None:
    one = holding()
    assert deltas(snapshot(one), snapshot()) == [Closed(one, "exited", None)]


def test_a_process_with_a_reused_pid_inherits_nothing() -> None:
    old, new = holding(by=process(7, 100)), holding(by=process(7, 200))
    assert deltas(snapshot(old), snapshot(new)) == [Closed(old, "exited", None), Opened(new)]


def test_a_reused_pid_without_sockets_closes_as_exited() -> None:
    old = holding(by=process(7, 100))
    assert deltas(snapshot(old), snapshot(others=[process(7, 200)])) == [
        Closed(old, "exited", None)
    ]


def test_a_reused_inode_closes_before_it_opens() -> None:
    old = holding(tcp(11))
    new = holding(tcp(11)._replace(proto="udp", state="UNCONNECTED"))
    assert deltas(snapshot(old), snapshot(new)) == [Closed(old, "closed", None), Opened(new)]


def test_another_state_is_an_update() -> None:
    old, new = holding(tcp(state="SYN_SENT")), holding(tcp(state="ESTABLISHED"))
    assert deltas(snapshot(old), snapshot(new)) == [Updated(new, old)]


@pytest.mark.parametrize(
    "now",
    [
        holding(tcp(local_port=81)),
        holding(tcp(remote_addr="127.0.0.1", remote_port=5)),
        holding(tcp(direction="inbound")),
        holding(tcp(backlog=5)),
        holding(tcp(interface="eth0")),
        holding(tcp(peer_inode=12)),
        holding(fds=(3, 4)),
        holding()._replace(owner=Owner(1, "daemon")),
        holding(by=process(comm="renamed")),
        holding(by=process(exe="/bin/true")),
    ],
)
def test_an_update_reports_changed_fields(now: Holding) -> None:
    assert deltas(snapshot(holding()), snapshot(now)) == [Updated(now, holding())]


def test_queues_and_command_lines_are_not_updates() -> None:
    one = holding()
    for now in (holding(tcp(recv_q=9, send_q=9)), holding(by=process(cmdline=("x",)))):
        assert deltas(snapshot(one), snapshot(now)) == []


def test_an_update_after_another_queue_has_the_state_of_the_poll_before() -> None:
    first, second = holding(), holding(tcp(recv_q=9))
    third = holding(tcp(state="CLOSE"))
    assert deltas(snapshot(first), snapshot(second), snapshot(third)) == [Updated(third, second)]


def test_a_close_has_the_seconds_since_the_open() -> None:
    one = holding()
    found = deltas(
        snapshot(time=10), snapshot(one, time=12), snapshot(time=15.5, others=[process()])
    )
    assert found == [Closed(one, "closed", 3.5)]


def test_the_seconds_of_a_reopened_socket_begin_again() -> None:
    one = holding()
    polls = [snapshot(time=1), snapshot(one, time=2), snapshot(time=3), snapshot(one, time=10)]
    assert deltas(*polls, snapshot(time=11)) == [Closed(one, "exited", 1)]


def test_a_socket_whose_holder_becomes_known_is_attributed() -> None:
    unknown, known = without_holder(tcp(11)), holding(tcp(11))
    assert deltas(snapshot(unknown), snapshot(known)) == [
        Closed(unknown, "attributed", None),
        Opened(known),
    ]


def test_a_socket_without_a_known_holder_closes_as_closed() -> None:
    unknown = without_holder(tcp(11))
    assert deltas(snapshot(unknown), snapshot(holding(tcp(12)))) == [
        Closed(unknown, "closed", None),
        Opened(holding(tcp(12))),
    ]


def test_a_field_that_becomes_known_closes_nothing() -> None:
    # The descriptor of a socket that is in no table has the protocol, but not the type.
    unknown = tcp()._replace(proto="unix", family="unix", type=None)
    found = deltas(snapshot(holding(unknown)), snapshot(holding(unknown._replace(type="stream"))))
    assert not [delta for delta in found if isinstance(delta, Closed)]


def test_only_the_changed_keys_of_a_snapshot_are_compared() -> None:
    one, two, three = (holding(tcp(inode)) for inode in (1, 2, 3))
    now = snapshot(two, three)._replace(changed=frozenset({(7, 1), (7, 3)}))
    assert set(deltas(snapshot(one, two), now)) == {Closed(one, "closed", None), Opened(three)}


def test_a_short_lived_socket_opens_and_closes() -> None:
    one, short_lived = holding(), without_holder(tcp(12))
    found = deltas(snapshot(), snapshot(one, short_lived=(short_lived,)))
    assert found == [Opened(one), Opened(short_lived), Closed(short_lived, "closed", None)]


def test_a_short_lived_socket_of_an_exited_process_closes_as_exited() -> None:
    short_lived = holding(tcp(12), by=process(8))
    for others, reason in ([process(8)], "closed"), ([process(8, 200)], "exited"), ([], "exited"):
        found = deltas(snapshot(), snapshot(others=others, short_lived=(short_lived,)))
        assert found == [Opened(short_lived), Closed(short_lived, reason, None)]


FIGURES = TcpFigures(1, 2, 3, 4, 5, 0.5)


def test_events_give_deltas_their_times() -> None:
    one, two = holding(tcp(1)), holding(tcp(2))
    changed = holding(tcp(1, "CLOSE"))
    first, second = snapshot(time=10), snapshot(one, time=12)._replace(event_times={1: 10.5})
    assert deltas(first, second) == [Opened(one, 10.5)]
    third = snapshot(changed, two, time=14)._replace(event_times={1: 13.5})
    assert deltas(first, second, third) == [Updated(changed, one, 3.0, 13.5), Opened(two)]
    ended = {1: SocketEnd(14.5, FIGURES), 2: SocketEnd(None, FIGURES)}
    last = snapshot(time=16)._replace(ended=ended)
    assert deltas(first, second, third, last) == [
        Closed(changed, "exited", 4.0, 14.5, FIGURES),
        Closed(two, "exited", 2.0, None, FIGURES),
    ]


def test_every_holder_of_a_socket_that_ended_has_the_time_of_its_end() -> None:
    holders = [holding(by=process(pid)) for pid in (7, 8)]
    last = snapshot()._replace(ended={11: SocketEnd(9.5)})
    assert set(deltas(snapshot(*holders), last)) == {
        Closed(one, "exited", None, 9.5) for one in holders
    }


def test_a_socket_that_another_process_still_holds_closes_at_the_poll() -> None:
    one, other = holding(by=process(7)), holding(by=process(8))
    found = deltas(snapshot(one, other), snapshot(other, others=[process(7)]))
    assert found == [Closed(one, "closed", None)]


@pytest.mark.parametrize(
    ("opened", "closed", "seconds"),
    [(1.5, 4.0, 2.5), (None, 4.0, None), (1.5, None, None), (None, None, None)],
)
def test_a_short_lived_socket_has_the_times_that_events_showed(
    opened: float | None, closed: float | None, seconds: float | None
) -> None:
    one = ShortLived(holding(), opened, SocketEnd(closed, FIGURES), "closed")
    assert deltas(snapshot(), snapshot(short_lived=(one,))) == [
        Opened(one.holding, opened),
        Closed(one.holding, "closed", seconds, closed, FIGURES),
    ]


def test_events_that_are_switched_off_change_the_coverage() -> None:
    on = FULL_COVERAGE._replace(events_off=None)
    assert deltas(snapshot(), snapshot(coverage=on)) == [on]
    assert deltas(snapshot(coverage=on), snapshot()) == [FULL_COVERAGE]


def test_another_namespace_is_an_update() -> None:
    was, now = holding(tcp(netns=None)), holding(tcp(netns=5))
    assert deltas(snapshot(was), snapshot(now)) == [Updated(now, was)]


def test_coverage_comes_first() -> None:
    sight = FULL_COVERAGE._replace(unreadable=1)
    assert deltas(snapshot(), snapshot(holding(), coverage=sight)) == [sight, Opened(holding())]


def test_the_number_of_processes_is_not_coverage() -> None:
    assert deltas(snapshot(), snapshot(coverage=FULL_COVERAGE._replace(processes=9))) == []


def test_closes_come_before_updates_and_opens() -> None:
    gone, old, new = holding(tcp(1)), holding(tcp(2)), holding(tcp(2, state="CLOSE"))
    begun = holding(tcp(3))
    found = deltas(snapshot(old, gone), snapshot(begun, new))
    assert [type(delta) for delta in found] == [Closed, Updated, Opened]


@given(runs())
def test_deltas_folded_over_the_first_snapshot_are_the_newest_one(polls: list[Snapshot]) -> None:
    tracker = DeltaTracker()
    assert tracker.advance(polls[0]) == []
    state: dict[HoldingKey, Holding] = dict(polls[0].holdings)
    sight = polls[0].coverage
    for poll in polls[1:]:
        for delta in tracker.advance(poll):
            match delta:
                case Coverage():
                    sight = delta
                case Opened(now):
                    assert key(now) not in state
                    state[key(now)] = now
                case Updated(now, before):
                    assert is_same(state[key(now)], before)
                    assert not is_changed(state[key(now)], before)
                    state[key(now)] = now
                case Closed(was):
                    assert is_same(state.pop(key(was)), was)
        assert state.keys() == poll.holdings.keys()
        for at, now in poll.holdings.items():
            assert is_same(state[at], now)
            assert not is_changed(state[at], now)
        assert sight[1:] == poll.coverage[1:]


@given(runs(least=2, most=4))
def test_an_update_always_has_a_change(polls: list[Snapshot]) -> None:
    tracker = DeltaTracker()
    for poll in polls:
        for delta in tracker.advance(poll):
            if isinstance(delta, Updated):
                assert is_changed(delta.before, delta.holding)
            elif isinstance(delta, Closed):
                assert delta.reason in ("closed", "exited", "attributed")
