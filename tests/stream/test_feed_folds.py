"""What a subscriber holds when it falls behind, resumes, or sees through a filter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Snapshot
from agent.stream.filters import Filter

from ..feeding import (
    ONE,
    THREE,
    TWO,
    Source,
    events,
    seqs,
    tracked,
)
from ..make import holding, tcp
from ..strategies import runs


async def test_a_subscriber_behind_the_history_is_told_what_it_lost() -> None:
    source = Source(history_records=2)
    source.poll()
    subscriber = source.subscribe()
    await subscriber.read()
    for held in ([ONE], [ONE, TWO], [TWO], [TWO, THREE]):
        source.poll(*held)
    told = await subscriber.read()
    assert events(told) == ["lost", "snapshot", "snapshot", "snapshot_end"]
    assert (told[0]["from"], told[0]["to"], told[0]["seq"]) == (1, 4, 4)
    assert subscriber.fold.keys() == {(7, 2), (7, 3)}
    source.poll(THREE)
    assert [(one["event"], one["seq"]) for one in await subscriber.read()] == [("close", 5)]


async def test_a_poll_larger_than_the_history_is_told_to_who_keeps_up() -> None:
    source = Source(history_bytes=1000, history_records=3)
    source.poll()
    prompt, slow = source.subscribe(), source.subscribe()
    await prompt.read()
    await slow.read()
    for count in (9, 0, 5):
        held = [holding(tcp(inode)) for inode in range(1, count + 1)]
        before = source.feed.seq
        source.poll(*held)
        told = await prompt.read()
        assert seqs(told) == list(range(before + 1, source.feed.seq + 1))
        assert tracked(prompt.fold) == tracked(source.state())
    told = await slow.read()
    assert events(told)[:2] == ["lost", "snapshot"]
    assert tracked(slow.fold) == tracked(source.state())


async def test_a_slow_subscriber_delays_no_other() -> None:
    source = Source(history_records=3)
    source.poll()
    slow, fast = source.subscribe(), source.subscribe()
    await slow.read()
    await fast.read()
    for inode in range(1, 10):
        source.poll(holding(tcp(inode)))
        told = await fast.read()
        assert "lost" not in events(told)
    assert events(await slow.read())[0] == "lost"


async def test_the_history_is_bounded_in_bytes_and_records() -> None:
    for bounds in ({"history_records": 10}, {"history_bytes": 5000}):
        source = Source(**bounds)
        for inode in range(1, 200):
            source.poll(holding(tcp(inode)))
        held = 0
        for seq in range(source.feed.seq, 0, -1):
            if not source.feed.history.holds(seq - 1):
                break
            held += 1
        assert 2 <= held <= 10


# Whatever happens, a subscriber's fold is the newest state.


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
        source.show(poll)
        if read:
            await subscriber.read()
            assert tracked(subscriber.fold) == tracked(source.state(wanted))
    await subscriber.read()
    assert tracked(subscriber.fold) == tracked(source.state(wanted))


@given(polls=runs(least=2), at=st.integers(0, 9))
async def test_a_resumed_stream_goes_on_as_if_it_had_not_ended(
    polls: list[Snapshot], at: int
) -> None:
    source = Source()
    source.show(polls[0])
    whole = source.subscribe()
    everything = await whole.read()
    for poll in polls[1:]:
        source.show(poll)
        everything += await whole.read()
    at = min(at, source.feed.seq)
    resumed = await source.subscribe(resume=("epoch", at)).read()
    assert resumed[1:] == [record for record in everything if record["seq"] > at]
    assert seqs(resumed[1:]) == list(range(at + 1, source.feed.seq + 1))
