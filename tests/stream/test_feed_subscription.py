"""Messages as values, and that filtered and folded they are the newest state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Closed, Delta, Holding, HoldingKey, Opened, Snapshot, Updated
from agent.stream.diff import is_changed
from agent.stream.feed import Subscription
from agent.stream.filters import Filter
from agent.stream.history import DeltaBatch, FullSnapshot, Heartbeat, Hello, Lost, Message

from ..feeding import ONE, THREE, TWO, Source
from ..make import FULL_COVERAGE, key, snapshot
from ..strategies import runs

State = dict[HoldingKey, Holding]


@pytest.fixture
def source() -> Source:
    return Source()


def drain(subscription: Subscription) -> Iterator[Message]:
    return iter(subscription.take, None)


def deltas(message: Message | None) -> tuple[Delta, ...]:
    assert isinstance(message, DeltaBatch)
    return message.batch.deltas[message.begin :]


def fold(state: State, message: Message, chosen: Filter) -> State:
    """Return the state after a message; a delta that does not fit it is an error."""
    if isinstance(message, FullSnapshot):
        return {key(one): one for one in message.holdings if chosen.matches(one)}
    if isinstance(message, DeltaBatch):
        for delta in filter(None, map(chosen.apply, deltas(message))):
            match delta:
                case Opened(holding):
                    assert key(holding) not in state
                    state[key(holding)] = holding
                case Updated(holding):
                    assert key(holding) in state
                    state[key(holding)] = holding
                case Closed(holding):
                    del state[key(holding)]
    return state


def test_nothing_precedes_the_first_poll(source: Source) -> None:
    subscription = Subscription(source.feed)
    assert subscription.take() is None
    source.poll(ONE)
    assert isinstance(subscription.take(), Hello)


def test_hello_comes_first_and_then_the_whole_snapshot(source: Source) -> None:
    source.poll(ONE)
    source.poll(ONE, TWO)
    subscription = Subscription(source.feed)
    assert subscription.take() == Hello(1, 1_700_000_100.0, FULL_COVERAGE, resumed=False)
    source.poll()  # The snapshot is that of hello.
    assert subscription.take() == FullSnapshot(2, 1, 1_700_000_100.0, (ONE, TWO))
    assert {type(delta) for delta in deltas(subscription.take())} == {Closed}
    assert subscription.take() is None
    assert subscription.seq == 3


def test_a_resumed_subscription_gets_the_rest_of_a_batch(source: Source) -> None:
    source.poll()
    source.poll(ONE, TWO, THREE)
    subscription = Subscription(source.feed, resume=("epoch", 2))
    hello, batch = drain(subscription)
    assert isinstance(hello, Hello)
    assert (hello.seq, hello.resumed) == (2, True)
    assert deltas(batch) == (Opened(THREE),)


def test_a_subscription_behind_the_history_loses_deltas_and_gets_a_snapshot() -> None:
    source = Source(history_records=2)
    source.poll()
    subscription = Subscription(source.feed, snapshot=False)
    assert [type(message) for message in drain(subscription)] == [Hello]
    for held in ([ONE], [ONE, TWO], [TWO], [TWO, THREE]):
        source.poll(*held)
    lost, snapshot = drain(subscription)
    assert lost == Lost(seq=4, time=1_700_000_100.0, first=1)
    assert isinstance(snapshot, FullSnapshot)
    assert (snapshot.seq, snapshot.holdings) == (4, (TWO, THREE))
    assert source.feed.lost == 1


async def test_iteration_yields_heartbeats_and_ends_with_the_feed(source: Source) -> None:
    source.poll(ONE)
    messages = aiter(Subscription(source.feed))
    got = [await anext(messages) for _ in range(3)]
    assert [type(message) for message in got] == [Hello, FullSnapshot, Heartbeat]
    source.poll()
    source.feed.stop()
    assert [type(message) async for message in messages] == [DeltaBatch]


@pytest.mark.parametrize("records_kept", [2, 50_000])
@given(
    polls=runs(),
    reads=st.lists(st.booleans(), min_size=6, max_size=6),
    values=st.sampled_from([{}, {"state": ["LISTEN"]}, {"port": ["1"], "proto": ["tcp"]}]),
)
def test_every_fold_is_the_newest_state(
    records_kept: int, polls: list[Snapshot], reads: list[bool], values: dict[str, list[str]]
) -> None:
    source, chosen = Source(history_records=records_kept), Filter(values)
    subscription = Subscription(source.feed)
    state: State = {}
    for poll, read in zip(polls, [*reads[1:], True], strict=False):
        source.publish(poll)
        if not read and poll is not polls[-1]:
            continue
        for message in drain(subscription):
            state = fold(state, message, chosen)
        expected = {at: one for at, one in poll.holdings.items() if chosen.matches(one)}
        assert state.keys() == expected.keys()
        assert not [at for at in state if is_changed(state[at], expected[at])]


def test_hello_has_the_oldest_number_from_which_the_stream_can_be_resumed() -> None:
    source = Source(history_records=2)
    source.poll()
    for held in ((ONE,), (ONE, TWO), (TWO,), (TWO, THREE)):
        source.poll(*held)
    hello = Subscription(source.feed).take()
    assert isinstance(hello, Hello)
    assert (hello.seq, hello.oldest) == (4, 2)
    for since, resumed in ((1, False), (2, True)):
        again = Subscription(source.feed, resume=("epoch", since)).take()
        assert isinstance(again, Hello)
        assert again.resumed is resumed


def test_numbers_that_a_filter_of_a_remote_agent_hid_are_passed_over() -> None:
    source = Source()
    source.poll()
    subscription = Subscription(source.feed)
    list(drain(subscription))
    current = snapshot(ONE)
    source.feed.publish(current, [Opened(ONE)], first=5)
    source.feed.publish(current, [Opened(TWO)], first=9)
    source.feed.pass_over(12)
    got = [one for one in drain(subscription) if isinstance(one, DeltaBatch)]
    assert [one.batch.first for one in got] == [5, 9]
    assert subscription.seq == 12
    later = Subscription(source.feed, resume=("epoch", 6))
    got = [one for one in drain(later) if isinstance(one, DeltaBatch)]
    assert [one.batch.first for one in got] == [9]


def test_deltas_that_are_lost_are_reported_with_a_snapshot() -> None:
    source = Source()
    source.poll()
    subscription = Subscription(source.feed)
    list(drain(subscription))
    source.poll(ONE)
    generation = source.feed.generation
    source.feed.skip_to(7, snapshot(TWO))
    assert source.feed.generation > generation
    lost, whole = drain(subscription)
    assert isinstance(lost, Lost)
    assert (lost.first, lost.seq) == (1, 7)
    assert isinstance(whole, FullSnapshot)
    assert whole.holdings == (TWO,)
    new = Subscription(source.feed, resume=("epoch", 1)).take()
    assert isinstance(new, Hello)
    assert not new.resumed
