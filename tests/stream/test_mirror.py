"""Mirrors of remote agents: what their subscribers get is what the agents send."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.model import Closed, Coverage, Opened, Snapshot, Updated
from agent.stream import mirror as mirror_module
from agent.stream.decoder import Alive, Began, Decoded, Dropped, Other, Present, SnapshotEnd
from agent.stream.feed import Feed, NdjsonSubscription
from agent.stream.filters import Filter
from agent.stream.merged import MergedFeed, MergedSubscription
from agent.stream.mirror import InvalidStream, Mirror, batches_of

from ..feeding import ONE, THREE, TWO, events
from ..make import FULL_COVERAGE, holding, records, snapshot, tcp
from ..relaying import Agent, Folds, decoded
from ..strategies import snapshots

HOSTS = ("a", "b")


class Mirrored:
    """A mirror of an agent, and the connection between them."""

    def __init__(self, agent: Agent, merged: MergedFeed | None = None) -> None:
        self.agent = agent
        self.merged = merged or MergedFeed()
        host = agent.info.host
        self.mirror = Mirror(host, lambda feed: self.merged.put(host, feed), self.merged.wake)
        self.connection: NdjsonSubscription | None = None
        self.chosen = Filter()  # Of the agent.
        self._is_first = True

    def read(self, most: int = 1000) -> None:
        """Read so many messages at most; connect first, if not connected."""
        if self.connection is None:
            at = self.mirror.position
            resume = [] if at is None else [at]
            self.connection = self.agent.feed.subscribe(self.chosen, resume=resume, page_bytes=1500)
            self._is_first = True
        for _ in range(most):
            chunk = self.connection.take()
            if chunk is None:
                return
            if not chunk:
                continue
            got = decoded(chunk)
            first = got[0].value
            self.mirror.apply(got[:1], is_first=self._is_first)
            if self.mirror.feed is None and isinstance(first, Began) and self._is_first:
                self.fetch_history(got[0].seq, first)
            self.mirror.apply(got[1:], is_first=False)
            self._is_first = False

    def fetch_history(self, seq: int, began: Began) -> None:
        """Do what the client does when a relay starts."""
        assert began.oldest is not None
        resume = [(began.epoch, began.oldest)]
        source = self.agent.feed.subscribe(resume=resume, snapshot=False)
        found: list[Decoded] = []
        while chunk := source.take():
            found += [one for one in decoded(chunk) if one.seq <= seq]
        self.mirror.restore(list(batches_of(found)), began.oldest)

    def cut(self) -> None:
        """Break the connection."""
        self.connection = None


class Relaying(RuleBasedStateMachine):
    """Two agents, a relay and subscribers, each of which may be cut off, slow or restarted."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0
        self.merged = MergedFeed()
        self.agents = {host: self.new_agent(host) for host in HOSTS}
        self.mirrored = self.new_mirrors()
        self.readers = [Folds(), Folds()]
        self.subscriptions = [self.merged.subscribe(page_bytes=1500) for _ in self.readers]

    def new_agent(self, host: str) -> Agent:
        self.epochs += 1
        agent = Agent(host, f"{host}{self.epochs}", history_records=6)
        agent.poll()
        return agent

    def new_mirrors(self) -> dict[str, Mirrored]:
        return {host: Mirrored(self.agents[host], self.merged) for host in HOSTS}

    @rule(host=st.sampled_from(HOSTS), current=snapshots())
    def poll(self, host: str, current: Snapshot) -> None:
        self.agents[host].publish(current)

    @rule(host=st.sampled_from(HOSTS), most=st.integers(1, 4))
    def relay_reads(self, host: str, most: int) -> None:
        self.mirrored[host].read(most)

    @rule(host=st.sampled_from(HOSTS))
    def cut(self, host: str) -> None:
        self.mirrored[host].cut()

    @rule(host=st.sampled_from(HOSTS))
    def restart_agent(self, host: str) -> None:
        self.agents[host] = self.mirrored[host].agent = self.new_agent(host)
        self.mirrored[host].cut()

    @rule(host=st.sampled_from(HOSTS))
    def reload_agent(self, host: str) -> None:
        connection = self.mirrored[host].connection
        if connection is not None:
            connection.change_filter(Filter())

    @rule()
    def restart_relay(self) -> None:
        self.merged = MergedFeed()
        self.mirrored = self.new_mirrors()
        for number in range(len(self.readers)):
            self.reconnect(number)

    @rule(number=st.integers(0, 1))
    def reconnect(self, number: int) -> None:
        self.subscriptions[number].close()
        reader = self.readers[number]
        self.subscriptions[number] = self.merged.subscribe(
            resume=reader.position.resume, page_bytes=1500
        )
        reader.connect()

    @rule(number=st.integers(0, 1), most=st.integers(1, 5))
    def subscriber_reads(self, number: int, most: int) -> None:
        for _ in range(most):
            chunk = self.subscriptions[number].take()
            if chunk:
                self.readers[number].take(chunk)

    @invariant()
    def only_processes_with_sockets_are_kept(self) -> None:
        for mirrored in self.mirrored.values():
            feed = mirrored.mirror.feed
            if feed is not None:
                assert feed.snapshot is not None
                pids = {one.process.pid for one in feed.holdings() if one.process}
                assert feed.snapshot.processes.keys() == pids

    def teardown(self) -> None:
        for host in HOSTS:
            self.mirrored[host].read()
        for reader, subscription in zip(self.readers, self.subscriptions, strict=True):
            while chunk := subscription.take():
                reader.take(chunk)
            for host in HOSTS:
                assert reader.state(host) == self.agents[host].state()
                assert reader.hosts[host].seq == self.agents[host].feed.seq
                assert reader.hosts[host].epoch == self.agents[host].info.epoch


TestRelaying = Relaying.TestCase
TestRelaying.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# What a subscriber gets, case by case.


class Watched(Mirrored):
    """A mirror with one subscriber."""

    def __init__(self, **bounds: Any) -> None:
        super().__init__(Agent("a", "e1", **bounds))
        self.agent.poll(ONE)
        self.folds = Folds()
        self.subscription: MergedSubscription = self.merged.subscribe()

    def got(self) -> list[dict[str, Any]]:
        """Return what the subscriber gets now."""
        self.read()
        found = []
        while chunk := self.subscription.take():
            found += self.folds.take(chunk)
        return found


@pytest.fixture
def watched() -> Watched:
    watched = Watched()
    assert events(watched.got()) == ["hello", "snapshot", "snapshot_end"]
    return watched


def direct(agent: Agent, **options: Any) -> list[dict[str, Any]]:
    """What a subscriber of the agent itself gets."""
    chunks = iter(agent.feed.subscribe(**options).take, None)
    return [record for chunk in chunks for record in records(chunk)]


def test_a_subscriber_of_the_mirror_gets_what_one_of_the_agent_gets() -> None:
    agent = Agent("a", "e1")
    agent.poll(ONE)
    mirrored = Mirrored(agent)
    mirrored.read()
    agent.poll(TWO, THREE)
    agent.publish(snapshot(TWO, coverage=FULL_COVERAGE._replace(unreadable=1)))
    mirrored.read()
    chunks = iter(mirrored.merged.subscribe(resume=[("e1", 0)]).take, None)
    got = [record for chunk in chunks for record in records(chunk)]
    expected = direct(agent, resume=[("e1", 0)])
    assert got[1:] == expected[1:]
    assert got[0] | {"time": ""} == expected[0] | {"time": ""}
    assert got[0]["version"] == "9.9"


def test_an_interruption_is_not_seen_where_nothing_is_lost(watched: Watched) -> None:
    watched.cut()
    watched.agent.poll(ONE, TWO)
    assert events(watched.got()) == ["open"]


def test_what_the_agent_has_dropped_is_lost() -> None:
    watched = Watched(history_records=1)
    watched.got()
    watched.cut()
    for held in ([ONE, TWO], [TWO], [TWO, THREE]):
        watched.agent.poll(*held)
    got = watched.got()
    assert events(got) == ["lost", "snapshot", "snapshot", "snapshot_end"]
    assert (got[0]["from"], got[0]["to"], got[0]["seq"]) == (1, 3, 3)


def test_what_is_lost_within_a_connection_is_lost() -> None:
    watched = Watched(history_records=1)
    watched.got()
    for held in ([ONE, TWO], [TWO], [TWO, THREE]):
        watched.agent.poll(*held)
    assert events(watched.got())[0] == "lost"
    watched.agent.poll(THREE)
    assert events(watched.got()) == ["close"]


def test_a_restarted_agent_begins_anew(watched: Watched) -> None:
    watched.agent = Agent("a", "e2")
    watched.agent.poll(TWO)
    watched.cut()
    got = watched.got()
    assert events(got) == ["lost", "hello", "snapshot", "snapshot_end"]
    assert (got[1]["epoch"], got[1]["resumed"]) == ("e2", False)


def test_a_changed_filter_of_the_agent_begins_anew(watched: Watched) -> None:
    watched.agent.poll(ONE, TWO)
    watched.got()
    assert watched.connection is not None
    watched.connection.change_filter(Filter({"port": ["2"]}))
    got = watched.got()
    assert events(got) == ["hello", "snapshot", "snapshot_end"]
    assert got[1]["inode"] == 2


def test_numbers_that_a_filter_of_the_agent_hides_are_passed_over() -> None:
    mirrored = Mirrored(Agent("a", "e1"))
    agent = mirrored.agent
    agent.poll()
    mirrored.chosen = Filter({"port": ["2"]})
    mirrored.read()
    subscription = mirrored.merged.subscribe()
    list(iter(subscription.take, None))
    for held in ([ONE], [ONE, TWO], [ONE], []):
        agent.poll(*held)
    mirrored.read()
    chunks = list(iter(subscription.take, None))
    assert [one["seq"] for chunk in chunks for one in records(chunk)] == [2, 3]
    assert mirrored.mirror.position == ("e1", 3)
    assert mirrored.connection is not None
    mirrored.mirror.apply(decoded(mirrored.connection.heartbeat()), is_first=False)
    assert mirrored.mirror.position == ("e1", 4)


def test_numbers_hidden_within_a_poll_are_passed_over() -> None:
    mirrored = Mirrored(Agent("a", "e1"))
    mirrored.agent.poll()
    mirrored.read()
    mirrored.cut()
    mirrored.agent.poll(ONE, TWO, THREE, holding(tcp(4, local_port=4)))
    _, one, two, hidden, four = direct(mirrored.agent, resume=[("e1", 0)])
    mirrored.chosen = Filter({"port!": [str(hidden["inode"])]})
    mirrored.read()
    chunks = list(iter(mirrored.merged.subscribe(resume=[("e1", 0)]).take, None))
    assert [record for chunk in chunks for record in records(chunk)][1:] == [one, two, four]


@pytest.mark.parametrize(("since", "resumed"), [(1, False), (2, True), (4, True), (5, False)])
def test_a_new_mirror_can_resume_as_far_as_the_agent(since: int, resumed: bool) -> None:
    agent = Agent("a", "e1", history_records=2)
    agent.poll()
    for held in ([ONE], [ONE, TWO], [TWO], [TWO, THREE]):
        agent.poll(*held)
    mirrored = Mirrored(agent)
    mirrored.read()
    subscription = mirrored.merged.subscribe(resume=[("other", 4), ("e1", since)])
    (hello, *_), *_ = [records(chunk) for chunk in iter(subscription.take, None)]
    assert (hello["resumed"], hello["oldest"]) == (resumed, 2)


def test_a_position_is_used_once(watched: Watched) -> None:
    watched.subscription = watched.merged.subscribe(resume=[("e1", 0)])
    watched.folds.connect()
    assert [one["resumed"] for one in watched.got()] == [True]
    assert watched.connection is not None
    watched.connection.change_filter(Filter({"port": ["2"]}))
    got = watched.got()
    assert events(got) == ["hello", "snapshot_end"]
    assert not got[0]["resumed"]


def test_an_agent_that_sends_no_snapshots() -> None:
    mirrored = Mirrored(Agent("a", "e1"))
    mirrored.agent.poll(ONE)
    mirrored.chosen = Filter({"event": ["open", "close"]})
    mirrored.read()
    mirrored.agent.poll(TWO)
    mirrored.read()
    assert mirrored.mirror.position == ("e1", 2)
    chunks = list(iter(mirrored.merged.subscribe().take, None))
    assert [one["event"] for chunk in chunks for one in records(chunk)] == [
        "hello", "snapshot", "snapshot_end"
    ]  # fmt: skip


def test_a_heartbeat_has_the_figures_of_the_agent_once_they_are_known(watched: Watched) -> None:
    assert watched.connection is not None
    watched.merged.set_connected("a", connected=True)

    def figures() -> object:
        (silent,) = watched.subscription.idle(float("inf"), 0.0)
        return records(silent.heartbeat())[0]["polls"]

    assert figures() is None
    watched.mirror.apply(decoded(watched.connection.heartbeat()), is_first=False)
    assert figures() == 0


def test_how_long_an_update_was_open_is_known_of_what_opened_since() -> None:
    agent = Agent("a", "e1")
    agent.poll(ONE)
    mirrored = Mirrored(agent)
    mirrored.read()
    chosen = Filter({"state": ["LISTEN"]})
    subscription = mirrored.merged.subscribe(chosen)
    list(iter(subscription.take, None))
    listener = holding(tcp(9, state="LISTEN"))
    changed = holding(tcp(9, state="CLOSE"))
    agent.publish(snapshot(ONE, listener)._replace(time=1.7e9))
    agent.publish(snapshot(ONE, changed)._replace(time=1.7e9 + 2))
    mirrored.read()
    chunks = iter(subscription.take, None)
    close = [one for chunk in chunks for one in records(chunk) if one["event"] == "close"]
    assert [(one["reason"], one["duration_ms"]) for one in close] == [("filtered", 2000)]


# Streams that are none.


def began(*, resumed: bool = False, epoch: str = "e") -> Began:
    return Began(FULL_COVERAGE, epoch, resumed, "1", None, 1.0)


def of(value: Any, seq: int = 5) -> Decoded:
    return Decoded("a", seq, 1.7e9, value)


PRESENT = Present(ONE)
END = SnapshotEnd(1)
SNAPSHOT = [of(began()), of(PRESENT), of(END)]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([of(Opened(ONE))], "it does not begin with hello"),
        ([of(began(resumed=True))], "it resumes where nothing ended"),
        ([of(began()), of(PRESENT), of(Opened(TWO), 6)], "a snapshot does not end"),
        ([of(began()), of(PRESENT), of(PRESENT)], "a snapshot has a socket twice"),
        ([of(began()), of(PRESENT, 6)], "a snapshot does not follow hello or lost"),
        ([*SNAPSHOT, of(PRESENT)], "a snapshot does not follow hello or lost"),
        ([of(began()), of(END)], "a snapshot is not whole"),
        ([*SNAPSHOT, of(END)], "a snapshot is not whole"),
        ([of(began()), of(Dropped(1, 5))], "a snapshot does not end"),
        ([*SNAPSHOT, of(Opened(TWO))], "the numbers of the changes do not grow"),
        (
            [*SNAPSHOT, of(Opened(TWO), 7), of(Closed(TWO, "closed", None), 7)],
            "the numbers of the changes do not grow",
        ),
        ([*SNAPSHOT, of(began(resumed=True), 4)], "it resumes where nothing ended"),
        ([*SNAPSHOT, of(began(resumed=True, epoch="f"))], "it resumes where nothing ended"),
    ],
)
def test_invalid_streams(sent: list[Decoded], reason: str) -> None:
    mirror = Mirror("a", lambda _feed: None, lambda: None)
    with pytest.raises(InvalidStream) as raised:
        mirror.apply(sent, is_first=True)
    assert str(raised.value) == reason


@pytest.mark.parametrize("field", ["state", "local_addr", "remote_addr", "direction"])
def test_texts_of_an_agent_are_no_records_of_others(field: str) -> None:
    injected = 'x","host":"b"}\n{"event":"open","host":"b'
    fields: dict[str, Any] = {
        "state": "ESTABLISHED",
        "remote_addr": "10.0.0.1",
        "remote_port": 9,
        field: injected,
    }
    one = holding(tcp(1, **fields))
    agent = Agent("a", "e")
    agent.poll()
    mirror = Mirrored(agent)
    mirror.read()
    mirror.mirror.apply([of(Opened(one), 1)], is_first=False)
    subscription, found = mirror.merged.subscribe(), b""
    while chunk := subscription.take():
        found += chunk
    assert {record["host"] for record in records(found)} == {"a"}
    assert injected in [record.get(field) for record in records(found)]


def test_what_precedes_an_invalid_record_counts() -> None:
    feeds: list[Feed] = []
    mirror = Mirror("a", feeds.append, lambda: None)
    with pytest.raises(InvalidStream):
        mirror.apply([*SNAPSHOT, of(Opened(TWO), 6), of(END)], is_first=True)
    assert mirror.position == ("e", 6)
    assert feeds[0].holdings() == (ONE, TWO)


def test_the_number_of_sockets_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "MAX_HOLDINGS", 1)
    for sent in (
        [of(began()), of(PRESENT), of(Present(TWO))],
        [*SNAPSHOT, of(Opened(TWO), 6)],
    ):
        mirror = Mirror("a", lambda _feed: None, lambda: None)
        with pytest.raises(InvalidStream, match=r"^there are more than 1 sockets$"):
            mirror.apply(sent, is_first=True)


def test_records_of_unknown_kinds_are_passed_over() -> None:
    mirror = Mirror("a", lambda _feed: None, lambda: None)
    mirror.apply(
        [SNAPSHOT[0], of(Other("sung")), *SNAPSHOT[1:], of(Other("sung"), 7)], is_first=True
    )
    assert mirror.position == ("e", 7)
    mirror.apply([of(Coverage(1, 0, 1), 8)], is_first=False)
    assert mirror.position == ("e", 8)


VALUES: list[Any] = [
    began(), began(resumed=True), began(epoch="f"), began(resumed=True, epoch="f"), PRESENT,
    Present(TWO), END, SnapshotEnd(0), Opened(ONE), Opened(TWO), Closed(ONE, "closed", None),
    Updated(ONE, TWO), Coverage(1, 0, 1), Dropped(1, None), Alive(None), Other("sung"),
]  # fmt: skip


@given(
    sent=st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(VALUES), st.integers(0, 9)), min_size=1, max_size=5),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_any_records_raise_nothing_else_and_the_next_stream_is_right(
    sent: list[tuple[list[tuple[Any, int]], bool]],
) -> None:
    merged = MergedFeed()
    mirror = Mirror("a", lambda feed: merged.put("a", feed), merged.wake)
    subscription, folds = merged.subscribe(), Folds()
    for message, is_first in sent:
        with suppress(InvalidStream):
            mirror.apply([of(value, seq) for value, seq in message], is_first=is_first)
    agent = Agent("a", "e")
    agent.poll(ONE, THREE)
    mirror.apply(decoded(b"".join(iter(agent.feed.subscribe().take, None))), is_first=True)
    assert mirror.position == ("e", 0)
    while subscription.take() is not None:
        pass
    for chunk in iter(merged.subscribe().take, None):
        folds.take(chunk)
    assert folds.state("a") == agent.state()
