from agent.stream.cache import ENTRY_BYTES, ChunkCache


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
