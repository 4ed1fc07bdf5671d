"""State that one run of the service saves and the next one loads."""

import os
import pickle
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model import (
    Closed,
    Delta,
    Opened,
    ShortLived,
    Snapshot,
    SocketEnd,
    TcpFigures,
    Updated,
)
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
from ..strategies import changes, coverages, ends, holdings, mutated, short_lives, times, unseen

MACHINE = ("host", "boot")


def state_of(source: Source) -> SavedState:
    assert source.feed.snapshot
    held = [(one.time, one.deltas, one.first) for one in source.feed.history.batches]
    tracker = source._tracker
    return SavedState("epoch", source.feed.seq, source.feed.snapshot, tracker.opened_at, held)


def saved_and_loaded(state: SavedState, machine: Any = MACHINE) -> SavedState | None:
    descriptor = save(state, MACHINE)
    try:
        return load(descriptor, machine)
    finally:
        os.close(descriptor)


async def test_a_subscriber_resumes_over_a_restart() -> None:
    source = Source()
    source.poll(ONE)
    source.poll(ONE, TWO)
    source.poll(TWO)
    state = saved_and_loaded(state_of(source))
    assert state == state_of(source)
    assert state

    later = Source()
    later.feed.restore(state.seq, state.history())
    later._tracker = DeltaTracker(state.snapshot, state.opened_at)
    early = Subscriber(later.feed.subscribe(resume=[("epoch", 1)]), folds=False)
    # Changes between the runs are reported, though the first poll of a run knows none.
    later.publish(snapshot(TWO, THREE)._replace(changed=frozenset({(7, 3)})))
    records = await early.read()
    assert (records[0]["resumed"], events(records)) == (True, ["hello", "close", "open"])
    assert seqs(records) == [1, 2, 3]
    assert (records[1]["inode"], records[2]["inode"]) == (1, 3)
    later.publish(snapshot(THREE)._replace(changed=frozenset({(7, 2)})))
    (closed,) = await early.read()
    assert (closed["inode"], closed["duration_ms"]) == (2, 0)


async def test_deltas_dropped_by_the_earlier_run_cannot_be_resumed() -> None:
    source = Source(history_records=1)
    for held in ((), (ONE,), (TWO,), (THREE,)):
        source.poll(*held)
    state = state_of(source)
    feed = Feed(AGENT, heartbeat_seconds=0.0)
    feed.restore(state.seq, state.history())
    assert feed.history.holds(state.seq)
    assert not feed.history.holds(0)


def test_an_earlier_run_without_changes_can_be_resumed() -> None:
    source = Source()
    source.poll(ONE)
    feed = Feed(AGENT)
    feed.restore(state_of(source).seq, [])
    assert feed.history.holds(0)


@pytest.mark.parametrize("machine", [("other", "boot"), ("host", "later"), ("host", None)])
def test_the_state_of_another_host_or_boot_is_rejected(machine: tuple[str, str | None]) -> None:
    source = Source()
    source.poll(ONE)
    assert saved_and_loaded(state_of(source), machine) is None


def test_the_state_of_another_version_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    source.poll(ONE)
    descriptor = save(state_of(source), MACHINE)
    monkeypatch.setattr(handover, "__version__", "9")
    assert load(descriptor, MACHINE) is None
    os.close(descriptor)


# A pickle that names a missing module, as another version might have written it.
UNKNOWN = b"cno.such\nthing\n."


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x05", b"N.", UNKNOWN])
def test_a_file_that_is_no_state_is_rejected(content: bytes) -> None:
    headers = [b""] if content == UNKNOWN else [b"", handover._header(MACHINE)]
    for header in headers:
        descriptor = os.memfd_create("test")
        os.write(descriptor, header + content)
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
        b'["epoch",0,[[],[],[],[],[]],[0,[[1,1,0]],[],[1,0,1,[],null],null,[],[]],[]]',
    ],
)
def test_malformed_content_is_rejected(content: bytes) -> None:
    descriptor = os.memfd_create("test")
    os.write(descriptor, handover._header(MACHINE) + content)
    try:
        assert load(descriptor, MACHINE) is None
    finally:
        os.close(descriptor)


CLOSE_ROWS: list[tuple[list[Any], bool]] = [
    ([2.5, [1, 2, 3, 4, 5, 0.5]], True),
    ([None, None], True),
    ([2.5, [1, 2, 3, 4, 5, None]], True),
    ([-1, None], False),
    (["now", None], False),
    ([2.5, [1, 2, 3, 4, 5]], False),
    ([2.5, [1, 2, 3, 4, 5.5, 0.5]], False),
    ([2.5, [1, 2, None, 4, 5, 0.5]], False),
    ([2.5, "123456"], False),
    ([], False),
]


@pytest.mark.parametrize(("end", "valid"), CLOSE_ROWS)
def test_the_time_and_the_figures_of_a_close_are_checked(end: list[Any], valid: bool) -> None:
    held = tuple(snapshot(ONE).holdings.values())
    if valid:
        at, figures = end
        loaded = handover._delta(["close", 0, "closed", 1.5, *end], list(held))
        expected = None if figures is None else TcpFigures(*figures)
        assert loaded == Closed(ONE, "closed", 1.5, at, expected)
    else:
        with pytest.raises((ValueError, TypeError, LookupError)):
            handover._delta(["close", 0, "closed", 1.5, *end], list(held))


@pytest.mark.parametrize("attribution", ["guess", 1, []])
def test_an_unknown_attribution_is_rejected(attribution: Any) -> None:
    state = state_of_short_lived("connect")
    tree = orjson.loads(handover._encode(state))
    _epoch, _seq, tables, _values, _batches = tree
    *_others, rows = tables
    assert rows[-1][-1] == "connect"
    assert loaded_from(orjson.dumps(tree)) == state
    rows[-1][-1] = attribution
    assert loaded_from(orjson.dumps(tree)) is None


def state_of_short_lived(attribution: str) -> SavedState:
    one = ShortLived(ONE._replace(attribution=attribution), 1.5, SocketEnd(2.5), "closed")
    return SavedState("epoch", 0, snapshot(short_lived=(one,)), {}, [])


def test_loading_runs_no_code(tmp_path: Path) -> None:
    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    # As pickle reads it: agent.model.NamedTuple.__builtins__.__getitem__("eval")("open(...)").
    made = tmp_path / "made"
    names = text("agent.model") + text("NamedTuple.__builtins__.__getitem__")
    code = text(f"open({str(made)!r}, 'w').close()")
    content = b"\x80\x04" + names + b"\x93" + text("eval") + b"\x85R" + code + b"\x85R."
    assert loaded_from(content) is None
    assert not made.exists()


def loaded_from(content: bytes) -> SavedState | None:
    descriptor = os.memfd_create("test")
    try:
        os.write(descriptor, handover._header(MACHINE) + content)
        return load(descriptor, MACHINE)
    finally:
        os.close(descriptor)


# Generated states, whole and damaged.


@st.composite
def states(draw: st.DrawFn) -> SavedState:
    """The state of a run with all kinds of sockets and changes."""
    held = {key(one): one for one in draw(st.lists(holdings, max_size=4))}
    seq = 0
    batches: list[tuple[float, tuple[Delta, ...], int]] = []
    for _ in range(draw(st.integers(0, 2))):
        pair = draw(changes())
        deltas = (
            Opened(pair[1], draw(times)),
            Updated(*pair, draw(st.none() | st.just(1.5)), draw(times)),
            Closed(pair[0], "exited", None, *draw(ends)), Opened(draw(unseen)), draw(coverages),
        )  # fmt: skip
        batches.append((1e9 + seq, deltas, seq + 1))
        seq += len(deltas)
    now = Snapshot(
        1.5e9, held, {7: 100}, draw(coverages), draw(st.none() | st.just(frozenset(held))),
        tuple(draw(st.lists(short_lives, max_size=2))),
    )  # fmt: skip
    return SavedState("epoch", seq, now, dict.fromkeys(held, 1e9), batches)


@given(states())
@settings(max_examples=60)
def test_any_state_is_loaded_as_it_was_saved(state: SavedState) -> None:
    assert saved_and_loaded(state) == state


def serve(state: SavedState) -> None:
    """Serve a loaded state: one that was accepted must not end the agent."""
    feed = Feed(AGENT, heartbeat_seconds=0.0)
    feed.restore(state.seq, state.history())
    later = snapshot(ONE)
    feed.publish(later, DeltaTracker(state.snapshot, state.opened_at).advance(later))
    subscriptions = feed.subscribe(), feed.subscribe(resume=[("epoch", 0)])
    for subscription in subscriptions:
        while subscription.take() is not None:
            pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(states(), st.data())
@settings(max_examples=60)
def test_a_state_with_a_changed_value_is_rejected_or_can_be_served(
    state: SavedState, data: st.DataObject
) -> None:
    tree = orjson.loads(handover._encode(state))
    at = tree
    while True:
        index = data.draw(st.integers(0, len(at) - 1))
        if not isinstance(at[index], list) or not at[index] or data.draw(st.integers(0, 4)) == 0:
            at[index] = data.draw(JSON)
            break
        at = at[index]
    if (read := loaded_from(orjson.dumps(tree))) is not None:
        serve(read)


@given(states(), st.data())
@settings(max_examples=60)
def test_a_damaged_state_is_rejected_or_can_be_served(
    state: SavedState, data: st.DataObject
) -> None:
    if (read := loaded_from(data.draw(mutated(handover._encode(state))))) is not None:
        serve(read)
