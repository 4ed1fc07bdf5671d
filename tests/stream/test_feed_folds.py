"""Records folded are the newest state, for subscribers that are slow, resume or have a filter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Snapshot
from agent.stream.filters import Filter

from ..feeding import ONE, THREE, TWO, Source, events, seqs, tracked
from ..make import holding, tcp
from ..strategies import runs


async def test_a_subscriber_behind_the_history_gets_lost_and_a_snapshot() -> None:
    source = Source(history_records=2)
    source.poll()
    subscriber = source.subscribe()
    await subscriber.read()
    for held in ([ONE], [ONE, TWO], [TWO], [TWO, THREE]):
        source.poll(*held)
    got = await subscriber.read()
    assert events(got) == ["lost", "snapshot", "snapshot", "snapshot_end"]
    assert (got[0]["from"], got[0]["to"], got[0]["seq"]) == (1, 4, 4)
    assert subscriber.fold.keys() == {(7, 2), (7, 3)}
    source.poll(THREE)
    assert [(one["event"], one["seq"]) for one in await subscriber.read()] == [("close", 5)]


async def test_a_poll_larger_than_the_history_reaches_a_subscriber_that_keeps_up() -> None:
    source = Source(history_bytes=1000, history_records=3)
    source.poll()
    prompt, slow = source.subscribe(), source.subscribe()
    await prompt.read()
    await slow.read()
    for count in (9, 0, 5):
        held = [holding(tcp(inode)) for inode in range(1, count + 1)]
        before = source.feed.seq
        source.poll(*held)
        got = await prompt.read()
        assert seqs(got) == list(range(before + 1, source.feed.seq + 1))
        assert tracked(prompt.fold) == tracked(source.state())
    got = await slow.read()
    assert events(got)[:2] == ["lost", "snapshot"]
    assert tracked(slow.fold) == tracked(source.state())


async def test_a_slow_subscriber_does_not_delay_others() -> None:
    source = Source(history_records=3)
    source.poll()
    slow, fast = source.subscribe(), source.subscribe()
    await slow.read()
    await fast.read()
    for inode in range(1, 10):
        source.poll(holding(tcp(inode)))
        got = await fast.read()
        assert "lost" not in events(got)
    assert events(await slow.read())[0] == "lost"


@pytest.mark.parametrize("records_kept", [2, 50_000])
@given(
    polls=runs(),
    reads=st.lists(st.booleans(), min_size=6, max_size=6),
    values=st.sampled_from(
        [{}, {"state": ["LISTEN"]}, {"pid": ["1"]}, {"port": ["1"], "proto": ["tcp"]}]
    ),
)
async def test_every_fold_is_the_newest_state(
    records_kept: int, polls: list[Snapshot], reads: list[bool], values: dict[str, list[str]]
) -> None:
    source = Source(history_records=records_kept)
    wanted = Filter(values)
    subscriber = source.subscribe(wanted)
    for poll, read in zip(polls, reads, strict=False):
        source.publish(poll)
        if read:
            await subscriber.read()
            assert tracked(subscriber.fold) == tracked(source.state(wanted))
    await subscriber.read()
    assert tracked(subscriber.fold) == tracked(source.state(wanted))


@given(polls=runs(least=2), at=st.integers(0, 9))
async def test_a_resumed_stream_equals_an_uninterrupted_one(polls: list[Snapshot], at: int) -> None:
    source = Source()
    source.publish(polls[0])
    whole = source.subscribe()
    everything = await whole.read()
    for poll in polls[1:]:
        source.publish(poll)
        everything += await whole.read()
    at = min(at, source.feed.seq)
    resumed = await source.subscribe(resume=[("epoch", at)]).read()
    assert resumed[1:] == [record for record in everything if record["seq"] > at]
    assert seqs(resumed[1:]) == list(range(at + 1, source.feed.seq + 1))
