import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Delta, Holding
from agent.stream import view as views
from agent.stream.encoder import Encoder
from agent.stream.feed import Feed
from agent.stream.filters import Filter
from agent.stream.view import ENTRY_BYTES, ChunkCache, gather

from ..feeding import AGENT, ONE, THREE, TWO, Source, events
from ..make import holding, process, records, snapshot, tcp

MANY = [holding(tcp(inode, local_port=inode)) for inode in range(1, 51)]


def drain(source: Source, **options: object) -> list[bytes]:
    """Return the chunks that a new subscription gets."""
    subscription = source.feed.subscribe(**options)  # type: ignore[arg-type]
    return list(iter(subscription.take, None))


def count_encodings(monkeypatch: pytest.MonkeyPatch) -> list[Holding | Delta]:
    """Return a list of what is encoded from now on, holdings and deltas."""
    encoded: list[Holding | Delta] = []
    encode_holdings, encode_delta = Encoder.holdings, Encoder.delta

    def holdings(encoder: Encoder, head: str, found: list[Holding]) -> object:
        taken = list(found)
        encoded.extend(taken)
        return encode_holdings(encoder, head, taken)

    def delta(encoder: Encoder, one: Delta, seq: int, time: float) -> bytes:
        encoded.append(one)
        return encode_delta(encoder, one, seq, time)

    monkeypatch.setattr(Encoder, "holdings", holdings)
    monkeypatch.setattr(Encoder, "delta", delta)
    return encoded


def test_a_snapshot_comes_in_pages_of_whole_records() -> None:
    source = Source()
    source.poll(*MANY)
    chunks = drain(source, page_bytes=2000)
    assert all(len(chunk) <= 2000 for chunk in chunks)
    got = [record for chunk in chunks for record in records(chunk)]
    assert events(got) == ["hello", *["snapshot"] * 50, "snapshot_end"]
    assert [record["inode"] for record in got[1:-1]] == list(range(1, 51))
    assert got[-1]["count"] == 50


def test_a_record_larger_than_a_page_is_a_page() -> None:
    source = Source()
    source.poll(holding(tcp(1), process(comm="x" * 5000)), TWO)
    got = [record for chunk in drain(source, page_bytes=1000) for record in records(chunk)]
    assert events(got) == ["hello", "snapshot", "snapshot", "snapshot_end"]


def test_a_snapshot_is_encoded_once_for_all_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    source.poll(*MANY)
    encoded = count_encodings(monkeypatch)
    drain(source, page_bytes=2000)
    alone = len(encoded)
    encoded.clear()
    subscriptions = [source.feed.subscribe(page_bytes=2000) for _ in range(20)]
    got: list[list[bytes]] = [[] for _ in subscriptions]
    for _ in range(100):
        for subscription, chunks in zip(subscriptions, got, strict=True):
            chunks.extend(filter(None, [subscription.take()]))
    assert all(chunks == got[0] for chunks in got)
    assert b"".join(got[0]).count(b'"event":"snapshot"') == len(MANY)
    assert len(encoded) == alone


def test_another_poll_without_deltas_is_another_snapshot() -> None:
    source = Source()
    source.poll(ONE)
    first, second = source.feed.subscribe(), source.feed.subscribe()
    assert b'"recv_q":0,' in b"".join(iter(first.take, None))
    source.poll(ONE._replace(socket=ONE.socket._replace(recv_q=5)))
    assert b'"recv_q":5,' in b"".join(iter(second.take, None))
    assert first.seq == second.seq == 0


def test_equal_filters_share_a_view() -> None:
    source = Source()
    source.poll(*MANY)
    first = source.feed.subscribe(Filter({"port": ["1-9", "20"]}))
    second = source.feed.subscribe(Filter({"port": ["20,1-9"]}))
    other = source.feed.subscribe(Filter({"port": ["20"]}))
    assert first.view is second.view
    assert first.view is not other.view


def test_pages_of_a_single_subscriber_are_not_kept() -> None:
    source = Source()
    source.poll(*MANY)
    drain(source)
    assert source.feed.views.pages.size == 0
    source.poll(ONE)
    assert source.feed.views.lines.size == 0


def test_a_subscriber_that_comes_while_another_reads_gets_all() -> None:
    source = Source()
    source.poll(*MANY)
    first = source.feed.subscribe(page_bytes=2000)
    for _ in range(3):
        first.take()
    assert b"".join(drain(source, page_bytes=2000)).count(b'"snapshot"') == 50


def test_the_deltas_of_a_poll_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source()
    source.poll()
    subscriptions = [source.feed.subscribe(Filter({"port": ["1,2"]})) for _ in range(20)]
    for subscription in subscriptions:
        assert list(iter(subscription.take, None))
    encoded = count_encodings(monkeypatch)
    compared: list[Delta] = []
    apply = Filter.apply

    def counted(chosen: Filter, delta: Delta) -> Delta | None:
        compared.append(delta)
        return apply(chosen, delta)

    monkeypatch.setattr(Filter, "apply", counted)
    source.poll(ONE, TWO, THREE)
    chunks = {subscription.take() for subscription in subscriptions}
    assert len(chunks) == 1
    assert len(compared) == 3
    assert len([one for one in encoded if not isinstance(one, Holding)]) == 2


def test_a_delta_that_several_filters_let_through_is_encoded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Source()
    source.poll()
    subscriptions = [
        source.feed.subscribe(Filter({"port": ["1", str(port)]})) for port in range(2, 22)
    ]
    for subscription in subscriptions:
        assert list(iter(subscription.take, None))
    encoded = count_encodings(monkeypatch)
    source.poll(ONE, TWO)
    got = [records(subscription.take() or b"") for subscription in subscriptions]
    assert {tuple(record["inode"] for record in chunk) for chunk in got} == {(1,), (1, 2)}
    assert len([one for one in encoded if not isinstance(one, Holding)]) == 2


def test_the_cache_of_pages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "CACHE_BYTES", 5000)
    source = Source()
    source.poll(*MANY)
    for _ in range(3):
        together = [source.feed.subscribe(page_bytes=2000) for _ in range(3)]
        for subscription in together:
            while subscription.take() is not None:
                assert source.feed.views.pages.size <= 5000


def test_a_filter_that_hides_nearly_everything_takes_several_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(views, "MAX_PAGE_ITEMS", 10)
    source = Source()
    source.poll(*MANY)
    chunks = drain(source, chosen=Filter({"port": ["45"]}))
    assert chunks.count(b"") == 4
    got = [record for chunk in chunks if chunk for record in records(chunk)]
    assert events(got) == ["hello", "snapshot", "snapshot_end"]
    assert got[-1]["count"] == 1


@pytest.mark.parametrize("turns", [(), ((ONE, TWO), ())])
def test_a_view_without_subscriptions_is_dropped(turns: tuple[tuple[Holding, ...]]) -> None:
    source = Source()
    source.poll(ONE)
    subscription = source.feed.subscribe(Filter({"port": ["1"]}))
    for held in turns:
        while subscription.take() is not None:
            pass
        source.poll(*held)
    assert len(source.feed.views) == 1
    subscription.close()
    subscription.close()
    del subscription
    assert len(source.feed.views) == 0


def test_chunks_are_wrapped_for_the_transport() -> None:
    def bracketed(chunk: bytes) -> bytes:
        return b"<" + chunk + b">"

    source = Source()
    source.poll(ONE)
    chunks = drain(source, wrap=bracketed)
    assert all(chunk.startswith(b"<{") and chunk.endswith(b"}\n>") for chunk in chunks)


def test_there_is_nothing_to_take_before_the_first_poll() -> None:
    assert Feed(AGENT).subscribe().take() is None


@given(
    st.lists(st.integers(1, 40), unique=True, max_size=30),
    st.integers(200, 4000),
    st.integers(1, 15),
    st.sampled_from([{}, {"port": ["1-10"]}, {"port": ["39"]}, {"event": ["open"]}]),
)
def test_pages_have_the_holdings_that_pass_and_count_them(
    inodes: list[int], page_bytes: int, items: int, values: dict[str, list[str]]
) -> None:
    source = Source()
    held: list[Holding] = [holding(tcp(inode, local_port=inode)) for inode in inodes]
    source.feed.publish(snapshot(*held), [])
    chosen = Filter(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "MAX_PAGE_ITEMS", items)
        chunks = drain(source, chosen=chosen, page_bytes=page_bytes)
    got = [record for chunk in chunks if chunk for record in records(chunk)][1:]
    if "snapshot" not in chosen.events:
        assert got == []
        return
    passing = [one.socket.inode for one in held if chosen.matches(one)]
    assert [record["inode"] for record in got[:-1]] == passing
    assert got[-1]["count"] == len(passing)


# Lines gathered to chunks, and the cache.

LIMIT = 1000


@given(st.lists(st.integers(1, LIMIT + 9), max_size=30))
def test_gathered_lines_are_bounded_and_continue_where_they_ended(sizes: list[int]) -> None:
    numbered = [(index, b"x" * size) for index, size in enumerate(sizes)]
    begin: int | None = 0
    found: list[bytes] = []
    while begin is not None:
        gathered, begin = gather(numbered[begin:], LIMIT)
        assert sum(map(len, gathered)) <= LIMIT or len(gathered) == 1
        # The next line would not have fitted.
        assert begin is None or sum(map(len, gathered)) + sizes[begin] > LIMIT
        found += gathered
    assert found == [line for _index, line in numbered]


def cache_of(entries: int, size: int) -> ChunkCache[str, bytes]:
    """A cache for so many entries of so many bytes."""
    return ChunkCache(entries * (size + ENTRY_BYTES), len)


def test_returns_what_was_put() -> None:
    cache = cache_of(3, 3)
    cache.put("a", b"123")
    assert cache.get("a") == b"123"
    assert cache.get("b") is None
    assert cache.size == 3 + ENTRY_BYTES


def test_drops_the_oldest_entry() -> None:
    cache = cache_of(3, 3)
    for name in "abc":
        cache.put(name, b"123")
    cache.get("a")
    cache.put("d", b"123")
    assert [name for name in "abcd" if cache.get(name)] == ["b", "c", "d"]
    assert cache.size == 3 * (3 + ENTRY_BYTES)


def test_counts_a_replaced_value_once() -> None:
    cache = cache_of(2, 8)
    cache.put("a", b"12345678")
    cache.put("a", b"1234")
    assert (cache.get("a"), cache.size) == (b"1234", 4 + ENTRY_BYTES)


def test_does_not_keep_a_value_larger_than_the_bound() -> None:
    cache = cache_of(1, 10)
    cache.put("a", b"1")
    cache.put("b", b"01234567890")
    assert (cache.get("b"), cache.size) == (None, 0)


def test_bounds_the_number_of_empty_values() -> None:
    cache = cache_of(10, 0)
    for number in range(1000):
        cache.put(str(number), b"")
    assert sum(cache.get(str(number)) is not None for number in range(1000)) == 10
