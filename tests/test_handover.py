"""A later run goes on where an earlier one ended."""

import os
import pickle
from typing import Any

import pytest

from agent import handover
from agent.feed import Feed
from agent.handover import Left, batches, pack, unpack
from agent.tracker import Tracker

from .feeding import AGENT, ONE, THREE, TWO, Source, Subscriber, events, seqs
from .make import snapshot

MACHINE = ("host", "boot")


def left_by(source: Source) -> Left:
    assert source.feed.snapshot
    held = [(one.time, one.deltas, one.first) for one in source.feed.history.batches]
    tracker = source._tracker
    return Left("epoch", source.feed.seq, source.feed.snapshot, tracker.opened_at, held)


def unpacked(left: Left, machine: Any = MACHINE) -> Left | None:
    descriptor = pack(left, MACHINE)
    try:
        return unpack(descriptor, machine)
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
    later.feed.restore(left.seq, batches(left))
    later._tracker = Tracker(left.snapshot, left.opened_at)
    early = Subscriber(later.feed.subscribe(resume=("epoch", 1)), folds=False)
    # What changed in between is told, though the first poll of a run knows no changes.
    later.show(snapshot(TWO, THREE)._replace(changed=frozenset({(7, 3)})))
    told = await early.told()
    assert (told[0]["resumed"], events(told)) == (True, ["hello", "close", "open"])
    assert seqs(told) == [1, 2, 3]
    assert (told[1]["inode"], told[2]["inode"]) == (1, 3)
    later.show(snapshot(THREE)._replace(changed=frozenset({(7, 2)})))
    (closed,) = await early.told()
    assert (closed["inode"], closed["duration_ms"]) == (2, 0)


async def test_what_the_earlier_run_no_longer_held_is_not_resumed() -> None:
    source = Source(history_records=1)
    for held in ((), (ONE,), (TWO,), (THREE,)):
        source.poll(*held)
    left = left_by(source)
    feed = Feed(AGENT, heartbeat=0.0)
    feed.restore(left.seq, batches(left))
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
    descriptor = pack(left_by(source), MACHINE)
    monkeypatch.setattr(handover, "__version__", "9")
    assert unpack(descriptor, MACHINE) is None
    os.close(descriptor)


# The last one names a module that there is not: what another version may have written.
UNKNOWN = b"cno.such\nthing\n."


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x05", b"N.", UNKNOWN])
def test_what_is_nothing_of_ours(content: bytes) -> None:
    marks = [b""] if content == UNKNOWN else [b"", handover._mark(MACHINE)]
    for mark in marks:
        descriptor = os.memfd_create("test")
        os.write(descriptor, mark + content)
        assert unpack(descriptor, MACHINE) is None
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
    ],
)
def test_what_is_none_of_ours_is_not_made(content: bytes) -> None:
    descriptor = os.memfd_create("test")
    os.write(descriptor, handover._mark(MACHINE) + content)
    try:
        assert unpack(descriptor, MACHINE) is None
    finally:
        os.close(descriptor)
