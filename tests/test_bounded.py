from agent.bounded import drop_oldest


def test_drops_the_oldest_items_of_a_mapping_that_is_too_large() -> None:
    mapping = dict.fromkeys(range(32))
    drop_oldest(mapping, 32)
    assert list(mapping) == list(range(32))
    mapping[32] = None
    drop_oldest(mapping, 32)
    assert list(mapping) == list(range(3, 33))
