"""A later run goes on where an earlier one ended."""

import os
import pickle
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model import Closed, Delta, Opened, Snapshot, Updated
from agent.service import handover
from agent.service.handover import SavedState, load, save
from agent.stream.diff import DeltaTracker
from agent.stream.feed import Feed

from ..feeding import (
    AGENT,
    ONE,
    THREE,
    TWO,
    Source,
    Subscriber,
    events,
    seqs,
)
from ..make import key, snapshot
from ..strategies import changes, coverages, holdings, mutated

MACHINE = ("host", "boot")


def left_by(source: Source) -> SavedState:
    assert source.feed.snapshot
    held = [(one.time, one.deltas, one.first) for one in source.feed.history.batches]
    tracker = source._tracker
    return SavedState("epoch", source.feed.seq, source.feed.snapshot, tracker.opened_at, held)


def unpacked(left: SavedState, machine: Any = MACHINE) -> SavedState | None:
    descriptor = save(left, MACHINE)
    try:
        return load(descriptor, machine)
    finally:
        os.close(descriptor)


async def test_a_subscriber_goes_on_over_both() -> None:
    source = Source()
    source.poll(ONE)
    source.poll(ONE, TWO)
    source.poll(TWO)
    left = unpacked(left_by(source))
    assert left == left_by(source)
    assert left

    later = Source()
    later.feed.restore(left.seq, left.history())
    later._tracker = DeltaTracker(left.snapshot, left.opened_at)
    early = Subscriber(later.feed.subscribe(resume=("epoch", 1)), folds=False)
    # What changed in between is told, though the first poll of a run knows no changes.
    later.show(snapshot(TWO, THREE)._replace(changed=frozenset({(7, 3)})))
    told = await early.read()
    assert (told[0]["resumed"], events(told)) == (True, ["hello", "close", "open"])
    assert seqs(told) == [1, 2, 3]
    assert (told[1]["inode"], told[2]["inode"]) == (1, 3)
    later.show(snapshot(THREE)._replace(changed=frozenset({(7, 2)})))
    (closed,) = await early.read()
    assert (closed["inode"], closed["duration_ms"]) == (2, 0)


async def test_what_the_earlier_run_no_longer_held_is_not_resumed() -> None:
    source = Source(history_records=1)
    for held in ((), (ONE,), (TWO,), (THREE,)):
        source.poll(*held)
    left = left_by(source)
    feed = Feed(AGENT, heartbeat_seconds=0.0)
    feed.restore(left.seq, left.history())
    assert feed.history.holds(left.seq)
    assert not feed.history.holds(0)


def test_an_earlier_run_without_changes() -> None:
    source = Source()
    source.poll(ONE)
    feed = Feed(AGENT)
    feed.restore(left_by(source).seq, [])
    assert feed.history.holds(0)


@pytest.mark.parametrize("machine", [("other", "boot"), ("host", "later"), ("host", None)])
def test_another_boot_has_another_stream(machine: tuple[str, str | None]) -> None:
    source = Source()
    source.poll(ONE)
    assert unpacked(left_by(source), machine) is None


def test_another_version_has_another_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    source.poll(ONE)
    descriptor = save(left_by(source), MACHINE)
    monkeypatch.setattr(handover, "__version__", "9")
    assert load(descriptor, MACHINE) is None
    os.close(descriptor)


# The last one names a module that there is not: what another version may have written.
UNKNOWN = b"cno.such\nthing\n."


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x05", b"N.", UNKNOWN])
def test_what_is_nothing_of_ours(content: bytes) -> None:
    marks = [b""] if content == UNKNOWN else [b"", handover._mark(MACHINE)]
    for mark in marks:
        descriptor = os.memfd_create("test")
        os.write(descriptor, mark + content)
        assert load(descriptor, MACHINE) is None
        os.close(descriptor)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps((os.system, "true")),
        b"cposix\nsystem\n(S'true'\ntR.",
        b"cagent.model\nNoSuch\n.",
        pickle.dumps(1),
        pickle.dumps(("too", "few")),
        b"\x80\x05\x8c\x02\xff\xff.",
        b"\x80\x05\x8e" + (1 << 62).to_bytes(8, "little"),
        b"",
        b"[" * 5000,
        b"[1,2,3]",
        b"null",
        b'["epoch",0,[[],[],[],[],[]],[0,[[1,1,0]],[],[1,0,1,[]],null,[],[]],[]]',
    ],
)
def test_what_is_none_of_ours_is_not_made(content: bytes) -> None:
    descriptor = os.memfd_create("test")
    os.write(descriptor, handover._mark(MACHINE) + content)
    try:
        assert load(descriptor, MACHINE) is None
    finally:
        os.close(descriptor)


def test_no_code_in_a_state_is_run(tmp_path: Path) -> None:
    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    # As pickle reads it: agent.model.NamedTuple.__builtins__.__getitem__("eval")("open(...)").
    made = tmp_path / "made"
    names = text("agent.model") + text("NamedTuple.__builtins__.__getitem__")
    code = text(f"open({str(made)!r}, 'w').close()")
    content = b"\x80\x04" + names + b"\x93" + text("eval") + b"\x85R" + code + b"\x85R."
    assert unpack_of(content) is None
    assert not made.exists()


def unpack_of(content: bytes) -> SavedState | None:
    descriptor = os.memfd_create("test")
    try:
        os.write(descriptor, handover._mark(MACHINE) + content)
        return load(descriptor, MACHINE)
    finally:
        os.close(descriptor)


# Any state, and what is none.


@st.composite
def lefts(draw: st.DrawFn) -> SavedState:
    """What a run with all kinds of sockets and changes leaves."""
    held = {key(one): one for one in draw(st.lists(holdings, max_size=4))}
    seq = 0
    told: list[tuple[float, tuple[Delta, ...], int]] = []
    for _ in range(draw(st.integers(0, 2))):
        pair = draw(changes())
        deltas = (
            Opened(pair[1]), Updated(*pair, draw(st.none() | st.just(1.5))),
            Closed(pair[0], "exited", None), draw(coverages),
        )  # fmt: skip
        told.append((1e9 + seq, deltas, seq + 1))
        seq += len(deltas)
    now = Snapshot(
        1.5e9, held, {7: 100}, draw(coverages), draw(st.none() | st.just(frozenset(held))),
        tuple(held.values())[:1],
    )  # fmt: skip
    return SavedState("epoch", seq, now, dict.fromkeys(held, 1e9), told)


@given(lefts())
@settings(max_examples=60)
def test_any_state_is_read_as_it_was_written(left: SavedState) -> None:
    assert unpacked(left) == left


def serves(left: SavedState) -> None:
    """Serve a state that was read: whatever passes as one must not end the agent."""
    feed = Feed(AGENT, heartbeat_seconds=0.0)
    feed.restore(left.seq, left.history())
    later = snapshot(ONE)
    feed.publish(later, DeltaTracker(left.snapshot, left.opened_at).advance(later))
    subscriptions = feed.subscribe(), feed.subscribe(resume=("epoch", 0))
    for subscription in subscriptions:
        while subscription.take() is not None:
            pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(lefts(), st.data())
@settings(max_examples=60)
def test_a_state_with_another_value_in_it_is_none_or_can_be_served(
    left: SavedState, data: st.DataObject
) -> None:
    tree = orjson.loads(handover._encode(left))
    at = tree
    while True:
        index = data.draw(st.integers(0, len(at) - 1))
        if not isinstance(at[index], list) or not at[index] or data.draw(st.integers(0, 4)) == 0:
            at[index] = data.draw(JSON)
            break
        at = at[index]
    if (read := unpack_of(orjson.dumps(tree))) is not None:
        serves(read)


@given(lefts(), st.data())
@settings(max_examples=60)
def test_a_damaged_state_is_none_or_can_be_served(left: SavedState, data: st.DataObject) -> None:
    if (read := unpack_of(data.draw(mutated(handover._encode(left))))) is not None:
        serves(read)
