"""A view: what a filter shows, encoded once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Holding
from agent.stream import view as views
from agent.stream.feed import Feed
from agent.stream.filters import Filter
from agent.stream.view import _Holdings

from ..feeding import (
    AGENT,
    ONE,
    THREE,
    TWO,
    Source,
    events,
)
from ..make import holding, process, records, snapshot, tcp

MANY = [holding(tcp(inode, local_port=inode)) for inode in range(1, 51)]


def drain(source: Source, **options: object) -> list[bytes]:
    subscription = source.feed.subscribe(**options)  # type: ignore[arg-type]
    chunks = []
    while (chunk := subscription.take()) is not None:
        chunks.append(chunk)
    return chunks


def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many holdings are encoded by each call from here on."""
    counts: list[int] = []
    encode = _Holdings._encode

    def counted(pages: _Holdings, begin: int, before: int) -> object:
        lines, end = encode(pages, begin, before)
        counts.append(len(lines))
        return lines, end

    monkeypatch.setattr(_Holdings, "_encode", counted)
    return counts


def test_a_snapshot_comes_in_pages_of_whole_records() -> None:
    source = Source()
    source.poll(*MANY)
    chunks = drain(source, page_bytes=2000)
    assert all(len(chunk) <= 2000 for chunk in chunks)
    told = [record for chunk in chunks for record in records(chunk)]
    assert events(told) == ["hello", *["snapshot"] * 50, "snapshot_end"]
    assert [record["inode"] for record in told[1:-1]] == list(range(1, 51))
    assert told[-1]["count"] == 50


def test_a_record_larger_than_a_page_is_a_page() -> None:
    source = Source()
    source.poll(holding(tcp(1), process(comm="x" * 5000)), TWO)
    told = [record for chunk in drain(source, page_bytes=1000) for record in records(chunk)]
    assert events(told) == ["hello", "snapshot", "snapshot", "snapshot_end"]


def test_a_snapshot_is_encoded_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    source.poll(*MANY)
    counts = encodings(monkeypatch)
    all_of_them = [source.feed.subscribe(page_bytes=2000) for _ in range(20)]
    told: list[list[bytes]] = [[] for _ in all_of_them]
    for _ in range(100):
        for subscription, chunks in zip(all_of_them, told, strict=True):
            chunks.extend(filter(None, [subscription.take()]))
    assert all(chunks == told[0] for chunks in told)
    assert sum(counts) == len(MANY) + 1


def test_filters_that_are_equal_share(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    source.poll(*MANY)
    first = source.feed.subscribe(Filter({"port": ["1-9", "20"]}))
    second = source.feed.subscribe(Filter({"port": ["20,1-9"]}))
    other = source.feed.subscribe(Filter({"port": ["20"]}))
    assert first.view is second.view
    assert first.view is not other.view


def test_what_one_alone_asks_for_is_not_kept() -> None:
    source = Source()
    source.poll(*MANY)
    drain(source)
    assert source.feed._kept.size == 0


def test_one_who_comes_while_another_reads_gets_the_whole() -> None:
    source = Source()
    source.poll(*MANY)
    first = source.feed.subscribe(page_bytes=2000)
    for _ in range(3):
        first.take()
    assert b"".join(drain(source, page_bytes=2000)).count(b'"snapshot"') == 50


def test_the_deltas_of_a_poll_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    through = views.filtered_record

    def counted(*arguments: object) -> bytes | bool | None:
        asked.append(1)
        return through(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(views, "filtered_record", counted)
    source = Source()
    source.poll()
    chosen = Filter({"port": ["1,2"]})
    all_of_them = [source.feed.subscribe(chosen) for _ in range(20)]
    for subscription in all_of_them:
        while subscription.take() is not None:
            pass
    source.poll(ONE, TWO, THREE)
    chunks = {subscription.take() for subscription in all_of_them}
    assert len(chunks) == 1
    assert len(asked) == 3


def test_what_is_kept_is_bounded() -> None:
    source = Source()
    source.poll(*MANY)
    source.feed._kept._most = 5000
    for _ in range(3):
        together = [source.feed.subscribe(page_bytes=2000) for _ in range(3)]
        for subscription in together:
            while subscription.take() is not None:
                assert source.feed._kept.size <= 5000


def test_a_filter_that_hides_nearly_everything_takes_several_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(views, "PAGE_HOLDINGS", 10)
    source = Source()
    source.poll(*MANY)
    chunks = drain(source, chosen=Filter({"port": ["45"]}))
    assert chunks.count(b"") == 4
    told = [record for chunk in chunks if chunk for record in records(chunk)]
    assert events(told) == ["hello", "snapshot", "snapshot_end"]
    assert told[-1]["count"] == 1


@pytest.mark.parametrize("turns", [(), ((ONE, TWO), ())])
def test_a_view_that_nobody_looks_through_is_forgotten(turns: tuple[tuple[Holding, ...]]) -> None:
    source = Source()
    source.poll(ONE)
    subscription = source.feed.subscribe(Filter({"port": ["1"]}))
    for held in turns:
        while subscription.take() is not None:
            pass
        source.poll(*held)
    assert len(source.feed._views) == 1
    subscription.close()
    subscription.close()
    del subscription
    assert len(source.feed._views) == 0


def test_what_a_transport_sends_is_wrapped() -> None:
    def bracketed(chunk: bytes) -> bytes:
        return b"<" + chunk + b">"

    source = Source()
    source.poll(ONE)
    chunks = drain(source, wrap=bracketed)
    assert all(chunk.startswith(b"<{") and chunk.endswith(b"}\n>") for chunk in chunks)


def test_before_the_first_poll_there_is_nothing_to_take() -> None:
    assert Feed(AGENT).subscribe().take() is None


@given(
    st.lists(st.integers(1, 40), unique=True, max_size=30),
    st.integers(200, 4000),
    st.integers(1, 15),
    st.sampled_from([{}, {"port": ["1-10"]}, {"port": ["39"]}, {"event": ["open"]}]),
)
def test_pages_hold_what_passes_and_count_it(
    inodes: list[int], page_bytes: int, scan: int, values: dict[str, list[str]]
) -> None:
    source = Source()
    held: list[Holding] = [holding(tcp(inode, local_port=inode)) for inode in inodes]
    source.feed.publish(snapshot(*held), [])
    chosen = Filter(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "PAGE_HOLDINGS", scan)
        chunks = drain(source, chosen=chosen, page_bytes=page_bytes)
    told = [record for chunk in chunks if chunk for record in records(chunk)][1:]
    if "snapshot" not in chosen.events:
        assert told == []
        return
    passing = [one.socket.inode for one in held if chosen.matches(one)]
    assert [record["inode"] for record in told[:-1]] == passing
    assert told[-1]["count"] == len(passing)
