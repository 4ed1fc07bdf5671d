from agent.bounded import drop_oldest
from agent.stream.cache import ChunkCache


def test_what_was_put_is_kept() -> None:
    kept = ChunkCache[str](10)
    kept.put("a", b"123")
    assert kept.get("a") == b"123"
    assert kept.get("b") is None
    assert kept.size == 3


def test_the_least_used_makes_room() -> None:
    kept = ChunkCache[str](10)
    for name in "abc":
        kept.put(name, b"123")
    kept.get("a")
    kept.put("d", b"1234")
    assert [name for name in "abcd" if kept.get(name)] == ["a", "c", "d"]
    assert kept.size == 10


def test_what_is_put_again_counts_once() -> None:
    kept = ChunkCache[str](10)
    kept.put("a", b"12345678")
    kept.put("a", b"1234")
    assert (kept.get("a"), kept.size) == (b"1234", 4)


def test_what_is_too_large_is_not_kept() -> None:
    kept = ChunkCache[str](10)
    kept.put("a", b"1")
    kept.put("b", b"01234567890")
    assert (kept.get("b"), kept.size) == (None, 0)


def test_of_a_mapping_that_is_too_large_the_oldest_items_are_dropped() -> None:
    mapping = dict.fromkeys(range(32))
    drop_oldest(mapping, 32)
    assert list(mapping) == list(range(32))
    mapping[32] = None
    drop_oldest(mapping, 32)
    assert list(mapping) == list(range(3, 33))
