"""Records → rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model import Closed, Coverage, Opened, Snapshot, TcpFigures, Updated
from agent.publish.terminal import eventlog
from agent.publish.terminal.endpoints import listens
from agent.publish.terminal.peers import Holder
from agent.publish.top.keys import KEYS
from agent.publish.top.model import Grouping, GroupKey, GroupRow, PeerRow, Queue, Traffic
from agent.publish.top.watch import MAX_EVENTS, Watch
from agent.stream.decoder import Alive, Began, Decoded, Dropped, Other, Present, SnapshotEnd, Value
from agent.stream.feed import Subscription
from agent.stream.filters import Filter
from agent.stream.history import Lost
from agent.stream.state import State

from ... import strategies
from ...feeding import Source
from ...make import process
from ...strategies import runs
from .hosts import CURL, GUNICORN, NGINX, Host, T, connection, in_state, listener

NGINX_KEY = GroupKey(Grouping.PROCESS, "web1", None, 812, 812)


def rows(host: Host, grouping: Grouping = Grouping.PROCESS, *words: str) -> dict[str, GroupRow]:
    """Return the rows by title; words are filters."""
    chosen = Filter({name: [value] for name, _, value in (word.partition("=") for word in words)})
    return {str(row.title): row for row in host.watch.groups(grouping, host.now, chosen)}


def test_a_row_of_a_process() -> None:
    host = Host(Watch(), listener(1), connection(2), connection(3, direction="outbound"))
    (row,) = rows(host).values()
    assert row.key == NGINX_KEY
    assert (row.title, row.pid, row.user, row.unit) == ("nginx", 812, "www-data", "web.service")
    assert (row.listen, row.inbound, row.outbound, row.sockets) == (1, 1, 1, 3)
    assert (row.opens_per_s, row.closes_per_s, row.short_share) == (0.0, 0.0, None)
    assert row.queue == Queue(0, 511, "*:443")
    assert (row.traffic, row.ended_ago, row.close_wait_age) == (None, None, None)


def test_the_header_counts_sockets_once() -> None:
    worker = NGINX._replace(pid=813)
    host = Host(Watch(), listener(1), listener(1, worker), connection(2), connection(3, None))
    header = host.watch.header(host.now)
    assert (header.host, header.time, header.state) == ("web1", T, "live")
    assert (header.sockets, header.listening, header.inbound) == (3, 1, 2)
    assert rows(host, Grouping.UNIT)["web.service"].listen == 1
    processes = host.watch.groups(Grouping.PROCESS, host.now)
    assert sum(row.listen for row in processes) == 2


def test_groups_of_each_kind() -> None:
    boxed = process(7, comm="redis", container="f2ca1bb6c7e9", unit="docker.scope")
    holdings = (
        listener(1), connection(2), connection(3, boxed, direction="outbound", remote_port=5432),
        connection(4, None),
    )  # fmt: skip
    host = Host(Watch(), *holdings)
    found = {grouping: set(rows(host, grouping)) for grouping in Grouping}
    assert found == {
        "process": {"nginx", "redis", "None"},
        "unit": {"web.service", "docker.scope", "None"},
        "container": {"f2ca1bb6c7e9", "None"},
        "user": {"www-data", "root"},
        "service": {"tcp:443", "tcp:5432"},
        "remote": {"198.51.100.7", "None"},
        "namespace": {"1"},
        "host": {"web1"},
    }


def test_rates_are_those_of_ten_whole_seconds() -> None:
    host = Host(Watch(one_clock=True))
    for poll in range(30):
        for number in range(14):
            host.open(connection(1000 + poll * 14 + number))
        if poll % 2:
            host.close(connection(1000 + poll), seconds=10.0 if poll % 4 == 1 else 0.5)
        host.poll()
    row = rows(host)["nginx"]
    assert (row.opens_per_s, row.closes_per_s) == (14.0, 0.5)
    assert row.short_share == pytest.approx(7 / 15)
    header = host.watch.header(host.now)
    assert (header.opens_per_s, header.closes_per_s) == (14.0, 0.5)
    assert header.open_spark == (*[0] * 30, *[14] * 30)
    assert sum(header.close_spark) == 15
    host.poll(61)
    row = rows(host)["nginx"]
    assert (row.opens_per_s, row.closes_per_s, row.short_share) == (0.0, 0.0, None)


def test_rates_of_the_first_seconds_are_not_diluted() -> None:
    host = Host(Watch(one_clock=True))
    host.open(*(connection(inode) for inode in range(1, 7)))
    host.poll(2)
    assert rows(host)["nginx"].opens_per_s == 3.0


def test_another_grouping_or_filter_has_the_rates_of_the_last_minute() -> None:
    host = Host(Watch(one_clock=True))
    for inode in range(1, 21):
        host.open(connection(inode, direction="inbound" if inode % 2 else "outbound"))
        host.poll()
    assert rows(host, Grouping.UNIT)["web.service"].opens_per_s == 1.0
    only = rows(host, Grouping.UNIT, "direction=outbound")["web.service"]
    assert (only.opens_per_s, only.inbound, only.outbound) == (0.5, 0, 10)


def test_a_socket_of_several_holders_opens_and_closes_once() -> None:
    host = Host(Watch(one_clock=True))
    worker = NGINX._replace(pid=813)
    host.open(connection(1), connection(1, worker))
    host.close(connection(1), connection(1, worker))
    host.poll(2)
    unit = rows(host, Grouping.UNIT)["web.service"]
    assert (unit.opens_per_s, unit.closes_per_s) == (0.5, 0.5)
    assert [row.opens_per_s for row in host.watch.groups(Grouping.PROCESS, host.now)] == [0.5, 0.5]


def test_a_socket_that_is_attributed_opens_once() -> None:
    host = Host(Watch(one_clock=True))
    host.open(connection(1, None))
    host.close(connection(1, None), reason="attributed")
    host.open(connection(1))
    host.poll(1)
    header = host.watch.header(host.now)
    assert (header.opens_per_s, header.closes_per_s) == (1.0, 0.0)
    assert set(rows(host)) == {"nginx"}


def test_traffic_of_closed_connections() -> None:
    host = Host(Watch(one_clock=True), connection(1), connection(2))
    for inode, figures in (
        (1, TcpFigures(10, 20, 1, 1, 2, 1.5)),
        (2, TcpFigures(1, 2, 1, 1, 0, None)),
    ):
        host.change(Closed(connection(inode), "closed", None, None, figures))
    assert rows(host)["nginx"].traffic == Traffic(11, 22, 2, 1.5)
    host.poll(61)
    assert rows(host) == {}


def test_close_wait_has_its_age() -> None:
    host = Host(Watch(one_clock=True), connection(1), connection(2, GUNICORN, "CLOSE_WAIT"))
    host.poll(5)
    host.update(connection(1), in_state(connection(1), "CLOSE_WAIT"))
    host.poll(60)
    row = rows(host)["nginx"]
    assert (row.close_wait, row.close_wait_age, row.close_wait_since_before) == (1, 60.0, False)
    row = rows(host)["gunicorn"]
    assert (row.close_wait, row.close_wait_age, row.close_wait_since_before) == (1, 65.0, True)
    (socket,) = host.watch.sockets(NGINX_KEY, host.now)
    assert (socket.close_wait_age, socket.close_wait_since_before) == (60.0, False)


def test_a_new_snapshot_keeps_ages_of_close_wait() -> None:
    host = Host(Watch(one_clock=True))
    host.open(in_state(connection(1), "CLOSE_WAIT"))
    host.poll(30)
    host.lose(1, 2)
    host.snapshot(in_state(connection(1), "CLOSE_WAIT"), in_state(connection(2), "CLOSE_WAIT"))
    host.poll(10)
    row = rows(host)["nginx"]
    assert (row.close_wait, row.close_wait_age, row.close_wait_since_before) == (2, 40.0, False)
    host.close(in_state(connection(1), "CLOSE_WAIT"))
    row = rows(host)["nginx"]
    assert (row.close_wait, row.close_wait_age, row.close_wait_since_before) == (1, 10.0, True)


def test_close_wait_of_a_shared_socket_is_as_old_as_its_oldest() -> None:
    host = Host(Watch(one_clock=True))
    one, other = connection(1, state="CLOSE_WAIT"), connection(
        1, NGINX._replace(pid=813), "CLOSE_WAIT"
    )  # fmt: skip
    host.open(one)
    host.poll(10)
    host.open(other)
    unit = rows(host, Grouping.UNIT)["web.service"]
    assert (unit.close_wait, unit.close_wait_age) == (1, 10.0)
    host.close(one)
    assert rows(host, Grouping.UNIT)["web.service"].close_wait == 1
    host.close(other)
    assert rows(host, Grouping.UNIT)["web.service"].close_wait == 0


def test_the_fullest_queue_and_one_that_was_read() -> None:
    host = Host(Watch(), listener(1, backlog=128, recv_q=3), listener(2, backlog=511, port=80))
    assert rows(host)["nginx"].queue == Queue(3, 128, "*:443")
    changes = host.watch.changes
    host.watch.queues({("web1", 2): (512, 511), ("web1", 9): (1, 1)})
    assert host.watch.changes > changes
    assert rows(host)["nginx"].queue == Queue(512, 511, "*:80")
    found = {row.key.inode: row.recv_q for row in host.watch.sockets(NGINX_KEY, host.now)}
    assert found == {1: 3, 2: 512}


def test_a_group_that_ended_stays_for_five_seconds() -> None:
    host = Host(Watch(one_clock=True), connection(1, CURL), connection(2))
    host.close(connection(1, CURL), reason="exited", seconds=1.0)
    assert rows(host)["curl"].ended_ago == 0.0
    host.poll(2)
    row = rows(host)["curl"]
    assert (row.ended_ago, row.sockets, row.closes_per_s) == (2.0, 0, 0.5)
    assert row.has_exited
    (socket,) = host.watch.sockets(row.key, host.now)
    assert (socket.ended_ago, socket.ending, socket.age) == (2.0, "exited after 1.0 s", 1.0)
    host.poll(3)
    assert set(rows(host)) == {"nginx"}
    assert not host.watch.sockets(row.key, host.now)
    host.open(connection(3, CURL))
    assert rows(host)["curl"].ended_ago is None


def test_connections_of_the_last_minute_have_their_other_ends() -> None:
    ends: dict[str, Any] = {"local_addr": "127.0.0.1", "remote_addr": "127.0.0.1"}
    host = Host(Watch(one_clock=True), listener(1))
    for port in (5001, 5002):
        called = connection(0, local_port=443, remote_port=port, **ends)
        call = connection(0, CURL, local_port=port, remote_port=443, direction="outbound", **ends)
        host.open(called, call)
        host.close(called, call, seconds=0.01)
    (row,) = host.watch.peers(NGINX_KEY, host.now)
    assert (row.peer, row.direction) == (Holder("curl", CURL.pid, 0), "in")
    assert (row.connections, row.service, row.address) == (2, "tcp:443", "127.0.0.1")
    assert host.watch.peers(NGINX_KEY, host.poll(61)) == []


@pytest.mark.parametrize("grouping", [Grouping.PROCESS, Grouping.UNIT])
def test_a_process_without_sockets_may_live(grouping: Grouping) -> None:
    host = Host(Watch(one_clock=True), connection(1, CURL), connection(2, CURL))
    host.close(connection(1, CURL), reason="exited")
    host.close(connection(2, CURL))
    (row,) = rows(host, grouping).values()
    assert (row.ended_ago, row.has_exited) == (0.0, False)
    host.open(connection(3, CURL))
    host.close(connection(3, CURL), reason="exited")
    (row,) = rows(host, grouping).values()
    assert row.has_exited is (grouping is Grouping.PROCESS)


def test_connections_over_before_a_poll_have_a_row_and_are_short() -> None:
    host = Host(Watch(one_clock=True))
    unseen = connection(0, CURL)
    for _ in range(2):
        host.open(unseen)
        host.close(unseen, seconds=None)
    row = rows(host)["curl"]
    assert (row.short_share, row.sockets, row.ended_ago) == (1.0, 0, 0.0)
    assert len(host.watch.sockets(row.key, host.now)) == 2


def test_a_pid_that_is_used_again_is_another_row() -> None:
    host = Host(Watch(one_clock=True), connection(1, CURL))
    host.close(connection(1, CURL))
    again = CURL._replace(start_ticks=9999, comm="wget")
    host.open(connection(2, again))
    found = rows(host)
    assert found["curl"].ended_ago is not None
    assert found["wget"].ended_ago is None
    assert found["curl"].key != found["wget"].key


def test_a_process_that_calls_execve_keeps_its_row() -> None:
    host = Host(Watch(), connection(1))
    renamed = connection(1, NGINX._replace(comm="nginx-new"))
    host.update(connection(1), renamed)
    (row,) = rows(host).values()
    assert (row.key, row.title, row.sockets) == (NGINX_KEY, "nginx-new", 1)


def test_an_update_moves_a_socket_to_another_group() -> None:
    host = Host(Watch(one_clock=True), connection(1, remote_addr="10.0.0.1"))
    assert set(rows(host, Grouping.REMOTE)) == {"10.0.0.1"}
    host.update(connection(1, remote_addr="10.0.0.1"), connection(1, remote_addr="10.0.0.2"))
    found = rows(host, Grouping.REMOTE)
    assert found["10.0.0.1"].ended_ago is not None
    assert found["10.0.0.2"].sockets == 1


def test_a_filter_chooses_sockets() -> None:
    host = Host(Watch(), connection(1), connection(2, GUNICORN, remote_addr="127.0.0.1"))
    assert set(rows(host, Grouping.PROCESS, "addr!=127.0.0.0/8")) == {"nginx"}
    host.open(connection(3, GUNICORN))
    assert rows(host, Grouping.PROCESS, "addr!=127.0.0.0/8")["gunicorn"].sockets == 1
    chosen = Filter({"addr!": ["127.0.0.0/8"]})
    key = GroupKey(Grouping.PROCESS, "web1", None, 1201, 1201)
    assert [row.key.inode for row in host.watch.sockets(key, host.now, chosen)] == [3]
    assert set(rows(host, Grouping.PROCESS, "host=web2")) == set()


def test_hosts_have_rows_of_their_own() -> None:
    watch = Watch()
    host = Host(watch, connection(1))
    Host(watch, connection(1), connection(2), name="web2", now=5e8)
    found = {row.key.host: row.sockets for row in watch.groups(Grouping.PROCESS, host.now)}
    assert found == {"web1": 1, "web2": 2}
    header = watch.header(host.now)
    assert (header.host, header.sockets) == ("2 hosts", 3)


def test_a_host_whose_clock_differs_has_rates() -> None:
    host = Host(Watch(), now=5e8)
    for inode in range(1, 21):
        host.open(connection(inode))
        (row,) = host.watch.groups(Grouping.PROCESS, T + host.now)
        host.poll()
    assert row.opens_per_s == 1.0


def test_sockets_with_their_holders_and_other_ends() -> None:
    here = connection(
        1, GUNICORN, local_addr="127.0.0.1", local_port=8080, remote_addr="127.0.0.1",
        remote_port=48_500,
    )  # fmt: skip
    there = connection(
        2, NGINX, local_addr="127.0.0.1", local_port=48_500, remote_addr="127.0.0.1",
        remote_port=8080, direction="outbound",
    )  # fmt: skip
    host = Host(Watch(one_clock=True), here, there)
    host.open(connection(3, NGINX))
    host.poll(4)
    old, new = sorted(host.watch.sockets(NGINX_KEY, host.now), key=lambda row: row.key)
    assert (old.peer, old.age) == (Holder("gunicorn", 1201, 0), None)
    assert (new.peer, new.age) == (None, 4.0)
    peers = host.watch.peers(NGINX_KEY, host.now)
    assert PeerRow("out", "tcp:8080", Holder("gunicorn", 1201, 0), "127.0.0.1", 1) in peers
    assert PeerRow("in", "tcp:443", None, "198.51.100.7", 1) in peers
    unit = GroupKey(Grouping.UNIT, "web1", "web.service")
    host.open(connection(3, NGINX._replace(pid=900, start_ticks=900)))
    assert sorted(row.others for row in host.watch.sockets(unit, host.now)) == [0, 1]


def test_the_rows_of_many_sockets_are_made_once_a_second() -> None:
    many = [connection(inode) for inode in range(1, 1102)]
    host = Host(Watch(one_clock=True), *many, connection(5000, GUNICORN))
    assert len(host.watch.sockets(NGINX_KEY, host.now)) == 1101
    host.close(many[0])
    assert all(row.ended_ago is None for row in host.watch.sockets(NGINX_KEY, host.now + 0.5))
    chosen = Filter({"port": ["1025"]})
    assert len(host.watch.sockets(NGINX_KEY, host.now + 0.5, chosen)) == 1
    rows = host.watch.sockets(NGINX_KEY, host.now + 1)
    assert [row.key.inode for row in rows if row.ended_ago is not None] == [1]
    key = GroupKey(Grouping.PROCESS, "web1", None, 1201, 1201)
    assert [row.ended_ago for row in host.watch.sockets(key, host.now)] == [None]
    host.close(connection(5000, GUNICORN))
    assert [row.ended_ago for row in host.watch.sockets(key, host.now + 0.25)] == [0.25]


def test_events_of_a_group_and_of_all() -> None:
    host = Host(Watch(), connection(1), connection(2, GUNICORN))
    opened, updated = (
        Opened(connection(3)),
        Updated(in_state(connection(1), "CLOSE_WAIT"), connection(1)),
    )
    closed, coverage = Closed(connection(2, GUNICORN), "closed", 1.0), Coverage(2, 0, 1)
    for value in (opened, updated, closed, coverage):
        host.change(value)
    values = [event.value for event in host.watch.events(None)]
    assert values == [opened, updated, closed, coverage]
    assert [event.value for event in host.watch.events(NGINX_KEY)] == [opened, updated, coverage]
    leaves = host.watch.events(NGINX_KEY, Filter({"state": ["ESTABLISHED"]}))
    assert [event.value for event in leaves] == [
        opened, Closed(connection(1), "filtered", None), coverage,
    ]  # fmt: skip
    assert not host.watch.events(NGINX_KEY._replace(host="web2"))


def test_events_that_are_of_no_socket_pass_a_filter_of_hosts() -> None:
    watch = Watch()
    for name in ("web1", "web2"):
        Host(watch, name=name).change(Coverage(2, 0, 1))
    assert [one.host for one in watch.events(None, Filter({"host": ["web2"]}))] == ["web2"]


def test_what_a_group_without_sockets_did_counts_for_a_minute() -> None:
    host = Host(Watch(), connection(1, CURL))
    host.close(connection(1, CURL), seconds=0.5)
    assert [row.ended_ago for row in host.watch.groups(Grouping.PROCESS, host.poll(1))] == [1.0]
    assert host.watch.groups(Grouping.PROCESS, host.poll(20)) == []
    host.open(connection(2, CURL))
    (row,) = host.watch.groups(Grouping.PROCESS, host.poll(1))
    assert row.short_share == 1.0


def test_only_the_newest_events_are_returned() -> None:
    host = Host(Watch())
    for number in range(MAX_EVENTS + 5):
        host.change(Coverage(number, 0, 1))
    events = host.watch.events(None)
    assert len(events) == MAX_EVENTS
    assert events[-1].value == Coverage(MAX_EVENTS + 4, 0, 1)


def test_a_snapshot_shows_while_it_arrives() -> None:
    watch = Watch()
    assert watch.header(T).state == "waiting for records"
    watch.apply(Decoded("web1", 0, T, Began(Coverage(1, 0, 1), "epoch", False, "1", None, 1.0)))
    assert watch.header(T).state == "waiting for a snapshot"
    watch.apply(Decoded("web1", 0, T, Present(connection(1))))
    assert [row.sockets for row in watch.groups(Grouping.PROCESS, T)] == [1]
    watch.apply(Decoded("web1", 0, T, Present(connection(2))))
    watch.apply(Decoded("web1", 0, T, Opened(connection(3))))
    assert [row.sockets for row in watch.groups(Grouping.PROCESS, T + 1)] == [3]
    watch.apply(Decoded("web1", 0, T, SnapshotEnd(3)))
    assert watch.header(T + 1).state == "live"


# Whatever comes.

busy_values: st.SearchStrategy[Value] = st.one_of(
    st.builds(Present, strategies._busy_holdings),
    st.builds(SnapshotEnd, st.integers(0, 3)),
    st.builds(Opened, strategies._busy_holdings, strategies.times),
    st.builds(Updated, strategies._busy_holdings, strategies._busy_holdings),
    st.builds(
        Closed, strategies._busy_holdings,
        st.sampled_from(["closed", "exited", "attributed", "filtered"]),
        st.none() | st.floats(0, 9), st.none(), st.none() | strategies.tcp_figures,
    ),
    st.builds(Opened, strategies.unseen),
    st.builds(Closed, strategies.unseen, st.just("closed"), st.none()),
    st.builds(Opened, strategies.holdings),
    strategies.coverages,
    st.builds(
        Began, strategies.coverages, st.just("epoch"), st.booleans(), st.just("1"), st.none(),
        st.just(1.0),
    ),
    st.builds(Dropped, st.integers(0, 9), st.none() | st.integers(0, 9)),
    st.builds(Alive, st.none()),
    st.builds(Other, st.just("later")),
)  # fmt: skip
states = st.sampled_from(["ESTABLISHED", "CLOSE_WAIT", "LISTEN"])
busy_records = st.tuples(
    st.builds(
        Decoded,
        st.sampled_from(["web1", "web2"]),
        st.integers(0, 9),
        st.sampled_from([T, T + 1, T + 2, T + 30, T + 300, 1e9, 4e9]) | st.floats(1.0e9, 4.0e9),
        busy_values,
    ),
    states,
)
FILTERS = [
    Filter(),
    Filter({"state": ["LISTEN"]}),
    Filter({"pid!": ["1"]}),
    Filter({"host": ["web1"]}),
    Filter({"event": ["open"]}),
]


def with_state(record: Decoded, state: str) -> Decoded:
    """Give the socket of a record a state."""
    value = record.value
    if isinstance(value, (Present, Opened, Updated, Closed)):
        return record._replace(value=value._replace(holding=in_state(value.holding, state)))
    return record


Counted = dict[GroupKey, tuple[int, int, int, int, int]]


def recount(state: State, grouping: Grouping, chosen: Filter) -> Counted:
    """Count the groups of a state plainly."""
    found: dict[GroupKey, set[tuple[str, int]]] = {}
    for (_, inode), (host, holding, _) in state.keyed():
        if not chosen.of_host(host).matches(holding):
            continue
        socket = holding.socket
        kind = "listen" if listens(socket) else str(socket.direction)
        kinds = found.setdefault(KEYS[grouping](host, holding), set())
        kinds.add((kind, inode))
        if socket.state == "CLOSE_WAIT":
            kinds.add(("CLOSE_WAIT", inode))
    counts = {key: Counter(kind for kind, _ in kinds) for key, kinds in found.items()}
    return {
        key: (
            one["listen"],
            one["inbound"],
            one["outbound"],
            one.total() - one["CLOSE_WAIT"],
            one["CLOSE_WAIT"],
        )
        for key, one in counts.items()
    }


def counted(found: Iterable[GroupRow]) -> Counted:
    return {
        row.key: (row.listen, row.inbound, row.outbound, row.sockets, row.close_wait)
        for row in found
        if row.ended_ago is None
    }


@settings(max_examples=150)
@given(
    records=st.lists(busy_records, max_size=25),
    looks=st.lists(
        st.tuples(
            st.sampled_from(Grouping), st.sampled_from(FILTERS), st.floats(0, 2e9), st.booleans()
        ),
        min_size=25,
        max_size=25,
    ),
    one_clock=st.booleans(),
)
def test_the_counts_are_those_of_a_plain_recount(
    records: list[tuple[Decoded, str]],
    looks: list[tuple[Grouping, Filter, float, bool]],
    one_clock: bool,
) -> None:
    watch, state = Watch(one_clock=one_clock), State()
    for (record, name), (grouping, chosen, now, is_looking) in zip(records, looks, strict=False):
        watch.apply(with_state(record, name))
        state.apply(with_state(record, name))
        if is_looking:
            check(watch, state, grouping, chosen, T + now)
    # A snapshot that has not ended is counted once a second.
    check(watch, state, *looks[0][:2], T + 3e9)


def check(watch: Watch, state: State, grouping: Grouping, chosen: Filter, now: float) -> None:
    watch.groups(grouping, now - 10, chosen)
    found = watch.groups(grouping, now, chosen)
    if not watch._arriving:
        assert counted(found) == recount(state, grouping, chosen)
        header = watch.header(now)
        hosts = recount(state, Grouping.HOST, Filter()).values()
        assert header.sockets == sum(one[3] for one in hosts)
        assert header.listening == sum(one[0] for one in hosts)
    for row in found:
        assert row.opens_per_s >= 0
        assert row.short_share is None or 0 <= row.short_share <= 1
        assert (row.close_wait_age is None) == (row.close_wait == 0)
        watch.sockets(row.key, now, chosen)
        watch.peers(row.key, now, chosen)
        watch.events(row.key, chosen)
    watch.events(None, chosen)
    watch.alarms(now)


@given(
    polls=runs(most=8),
    reads=st.lists(st.booleans(), min_size=8, max_size=8),
    records_kept=st.sampled_from([1, 4, 1000]),
    grouping=st.sampled_from(Grouping),
)
def test_messages_of_a_feed_lead_to_the_same_rows_whatever_is_lost(
    polls: list[Snapshot], reads: list[bool], records_kept: int, grouping: Grouping
) -> None:
    source, watch = Source(history_records=records_kept), Watch()
    source.publish(polls[0])
    subscription = Subscription(source.feed)
    lost = 0
    for poll, is_read in zip(polls, [*reads[: len(polls) - 1], True], strict=True):
        if poll is not polls[0]:
            source.publish(poll)
        if not is_read:
            continue
        while (message := subscription.take()) is not None:
            watch.apply_message("web1", message)
            lost += isinstance(message, Lost)
        state = State()
        for one in poll.holdings.values():
            state.apply(Decoded("web1", 1, 0.0, Present(one)))
        found = counted(watch.groups(grouping, poll.time))
        assert found == recount(state, grouping, Filter())
    events = [event.value for event in watch.events(None)]
    assert sum(isinstance(value, eventlog.Dropped) for value in events) == lost
